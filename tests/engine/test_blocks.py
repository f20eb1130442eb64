"""Blocks, policies, priorities and prefixes by hand, on both sides of each limit."""

from random import Random

import pytest

from loadstone.engine.blocks import BlockPool
from loadstone.engine.core import Engine
from loadstone.engine.fleet import AFFINITY_BOUND, QUEUE_WEIGHT, build_fleet
from loadstone.engine.policy import POLICIES
from loadstone.engine.sequence import Sequence
from loadstone.errors import NotModelledError, UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw

LIMITS = EngineLimits(
    max_num_seqs=8, max_num_batched_tokens=64, kv_blocks=16, block_size=4,
    max_model_len=64,
)  # fmt: skip
FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)


def run(engine: Engine, *sequences: Sequence) -> list[tuple[int, float]]:
    """Run each by itself; return the prefilled tokens and the pairs of its steps."""
    figures = []
    for sequence in sequences:
        engine.submit(sequence, 0.0)
        prefill, pairs = 0, 0.0
        while engine.due is not None:
            step = engine.step()
            prefill += step.prefill_tokens if step else 0
            pairs += step.pairs if step else 0.0
        figures.append((prefill, pairs))
    return figures


# ------------------------------------------------------------- the pool


def found(pool: BlockPool, *ids: int) -> tuple[int, int]:
    """Return how many of these are known, and free."""
    return pool.find(ids, len(ids))[:2]


def test_prompt_that_differs_inside_a_run_splits_it() -> None:
    """Both ends keep their holder; the front part is shared, and freed after both."""
    pool = BlockPool(6)
    pool.take(4)
    first = pool.name(None, (1, 2, 3, 4), 4)
    known, idle, run = pool.find((1, 2, 8, 9), 4)
    assert (known, idle, run) == (2, 0, first)
    pool.take(2)
    second = pool.name(pool.hold(run, known), (1, 2, 8, 9), 4)
    assert (pool.free, pool.known) == (0, 6)
    pool.release(first, 4)
    assert (pool.free, found(pool, 1, 2, 3, 4)) == (2, (4, 2))
    pool.release(second, 4)
    assert (pool.free, found(pool, 1, 2, 8, 9)) == (6, (4, 4))
    pool.take(3)  # 4, 3, 9: whose holder left first goes first, tails before heads
    assert (found(pool, 1, 2, 3, 4), found(pool, 1, 2, 8, 9)) == ((2, 2), (3, 3))


def test_prompt_that_ends_inside_an_idle_run_takes_its_front_from_the_list() -> None:
    """What is held is not taken for something else, and the tail still is."""
    pool = BlockPool(4)
    pool.take(4)
    pool.release(pool.name(None, (1, 2, 3, 4), 4), 4)
    known, idle, run = pool.find((1, 2, 3), 3)
    assert (known, idle) == (3, 3)
    held = pool.hold(run, known)
    assert pool.free == 1
    pool.take(1)
    assert found(pool, 1, 2, 3, 4) == (3, 0)
    pool.release(held, 4)
    assert (pool.free, found(pool, 1, 2, 3, 4)) == (4, (3, 3))


def test_oldest_freed_is_forgotten_first_and_tails_before_heads() -> None:
    """Two of three known blocks are taken: the tails; the head is found still."""
    pool = BlockPool(4)
    pool.take(3)
    pool.release(pool.name(None, (1, 2, 3), 3), 3)
    assert (pool.free, pool.known) == (4, 3)
    pool.take(1)  # the one that was never used
    assert found(pool, 1, 2, 3) == (3, 3)
    pool.take(2)
    assert found(pool, 1, 2, 3) == (1, 1)


def test_plain_blocks_keep_their_place_among_known_ones() -> None:
    """What was freed between two known blocks is taken between them."""
    pool = BlockPool(3)
    pool.take(3)
    first, second = pool.name(None, (1,), 1), pool.name(None, (2,), 1)
    pool.release(first, 1)
    pool.release(None, 1)
    pool.release(second, 1)
    pool.take(1)
    assert (found(pool, 1), found(pool, 2)) == ((0, 0), (1, 1))
    pool.take(1)
    assert found(pool, 2) == (1, 1)
    pool.take(1)
    assert (found(pool, 2), pool.free, pool.known) == ((0, 0), 0, 0)


def test_held_blocks_are_shared_and_never_forgotten() -> None:
    """A block is free when its last holder leaves, and not before."""
    pool = BlockPool(2)
    pool.take(1)
    held = pool.name(None, (7,), 1)
    assert held is not None
    assert pool.hold(held, 1) is held
    pool.release(held, 1)
    assert (pool.free, found(pool, 7)) == (1, (1, 0))
    pool.take(1)
    pool.release(held, 1)
    assert (pool.free, found(pool, 7)) == (1, (1, 1))
    assert repr(pool) == "<BlockPool 1 of 2 free, 1 known>"


# ------------------------------------------------------------- in the engine


def test_hits_shorten_prefill_and_pairs() -> None:
    """Eleven tokens, two known blocks: three are prefilled and attend to all before."""
    engine = Engine(LIMITS, FLAT, Random(1))
    a, b = (Sequence(n, 11, 1, prefix_ids=(1, 2)) for n in "ab")
    assert run(engine, a, b) == [(11, 11 * 5.5), (3, 3 * (8 + 1.5))]
    assert (a.cached_tokens, b.cached_tokens) == (0, 8)
    assert (engine.prefix_cache_queries, engine.prefix_cache_hits) == (22, 8)
    assert engine.kv_usage == 0.0


@pytest.mark.parametrize(("prompt", "prefilled"), [(8, 4), (9, 1)])
def test_last_block_of_a_full_prompt_is_computed_again(
    prompt: int, prefilled: int
) -> None:
    """At least one token must be computed, and blocks are hit as a whole."""
    engine = Engine(LIMITS, FLAT, Random(1))
    pair = (Sequence(n, prompt, 1, prefix_ids=(1, 2)) for n in "ab")
    assert [tokens for tokens, _ in run(engine, *pair)] == [prompt, prefilled]


def test_prefix_is_shared_within_the_step_that_fills_it() -> None:
    """As in vLLM: known when scheduled, so the second of two equals hits at once."""
    engine = Engine(LIMITS, FLAT, Random(1))
    a, b = (Sequence(n, 9, 2, prefix_ids=(1, 2)) for n in "ab")
    engine.submit(a, 0.0)
    engine.submit(b, 0.0)
    engine.step()
    assert (a.cached_tokens, b.cached_tokens) == (0, 8)
    assert engine.kv_usage == (3 + 1) / 16


def test_block_whose_like_was_forgotten_for_it_is_known() -> None:
    """The second takes all three blocks, that of id 1 too, and then has it itself."""
    limits = EngineLimits(
        max_num_seqs=8, max_num_batched_tokens=64, kv_blocks=3, block_size=4,
        max_model_len=12,
    )  # fmt: skip
    engine = Engine(limits, FLAT, Random(1))
    first = Sequence("a", 4, 1, prefix_ids=(1,))
    pair = [Sequence(n, 11, 1, prefix_ids=(5, 1)) for n in "bc"]
    assert [tokens for tokens, _ in run(engine, first, *pair)] == [4, 11, 3]


def test_id_means_something_only_after_those_before_it() -> None:
    """The same id after another one, or twice in a prompt, is another block."""
    engine = Engine(LIMITS, FLAT, Random(1))
    prompts = ((1, 2), (2, 1), (1, 1), (1, 1))
    found = run(engine, *(Sequence("a", 9, 1, prefix_ids=ids) for ids in prompts))
    assert [tokens for tokens, _ in found] == [9, 9, 5, 1]


def test_caching_can_be_turned_off() -> None:
    """Ids are ignored then because that was asked for, and nothing is counted."""
    engine = Engine(LIMITS, FLAT, Random(1), prefix_caching=False)
    pair = [Sequence(n, 9, 1, prefix_ids=(1, 2)) for n in "ab"]
    assert [tokens for tokens, _ in run(engine, *pair)] == [9, 9]
    assert (engine.prefix_cache_queries, pair[1].cached_tokens) == (0, None)


# ------------------------------------------------------------- policies at their limits


@pytest.mark.parametrize(
    ("policy", "declared", "together"),
    [
        ("trtllm_no_evict", 24, 2),  # (8 + 24) / 4 = 8 blocks: two fill the 16
        ("trtllm_no_evict", 25, 1),
        ("trtllm_max_util", 56, 4),  # 8 / 4 = 2 blocks: the batch limit is first
        ("vllm", 56, 4),
    ],
)
def test_no_evict_admits_what_could_run_to_its_declared_end(
    policy: str, declared: int, together: int
) -> None:
    """The true output is one token: only the reservation holds the others back."""
    engine = Engine(LIMITS, FLAT, Random(1), policy=policy)
    for name in "abcd":
        engine.submit(Sequence(name, 8, 1, max_output_tokens=declared), 0.0)
    engine.step()
    assert engine.running == together


@pytest.mark.parametrize(("policy", "in_batch"), [("vllm", 2), ("trtllm_max_util", 1)])
def test_max_util_wants_room_for_the_whole_prompt(policy: str, in_batch: int) -> None:
    """A first chunk would fit beside the first sequence, the prompt would not."""
    engine = Engine(LIMITS, FLAT, Random(1), policy=policy)
    engine.submit(Sequence("a", 40, 1), 0.0)
    engine.submit(Sequence("b", 28, 1), 0.0)  # 10 + 7 blocks; 24 tokens of budget
    engine.step()
    assert engine.running == in_batch


@pytest.mark.parametrize(
    ("policy", "chunks"),
    [("vllm", [10, 10, 1]), ("trtllm_max_util", [8, 8, 5])],
)
def test_chunks_end_where_blocks_end(policy: str, chunks: list[int]) -> None:
    """TensorRT-LLM rounds a chunk that is cut short down to whole blocks."""
    limits = EngineLimits(
        max_num_seqs=8, max_num_batched_tokens=10, kv_blocks=16, block_size=4,
        max_model_len=64,
    )  # fmt: skip
    engine = Engine(limits, FLAT, Random(1), policy=policy)
    engine.submit(Sequence("a", 21, 1), 0.0)
    found = []
    while engine.due is not None:
        step = engine.step()
        found += [step.prefill_tokens] if step else []
    assert found == chunks


@pytest.mark.parametrize("budget", [3, 4])
def test_budget_below_a_block_is_refused_where_chunks_are_blocks(budget: int) -> None:
    """No chunk would ever fit; under vLLM's policy one of three tokens does."""
    limits = EngineLimits(
        max_num_seqs=2, max_num_batched_tokens=budget, kv_blocks=16, block_size=4,
        max_model_len=64,
    )  # fmt: skip
    Engine(limits, FLAT, Random(1))
    for policy in ("trtllm_max_util", "trtllm_no_evict"):
        if budget == 4:
            Engine(limits, FLAT, Random(1), policy=policy)
            continue
        with pytest.raises(UsageError, match=r"\(3\) is below block_size \(4\)"):
            Engine(limits, FLAT, Random(1), policy=policy)


def test_what_is_not_modelled_is_refused() -> None:
    """Unknown names, extras of TensorRT-LLM, ids of half blocks, stray priorities."""
    for setup in ({"policy": "sglang"}, {"scheduling_policy": "lottery"}):
        with pytest.raises(UsageError, match=r"no (scheduling )?policy") as no:
            Engine(LIMITS, FLAT, Random(1), **setup)
        assert no.value.hint.startswith("one of ")
    for policy in set(POLICIES) - {"vllm"}:
        with pytest.raises(NotModelledError, match="by priority under policy"):
            Engine(LIMITS, FLAT, Random(1), policy=policy, scheduling_policy="priority")
        with pytest.raises(NotModelledError, match="a prefix cache under policy"):
            Engine(LIMITS, FLAT, Random(1), policy=policy).submit(
                Sequence("a", 8, 1, prefix_ids=(1,)), 0.0
            )
    engine = Engine(LIMITS, FLAT, Random(1))
    with pytest.raises(UsageError, match="2 prefix blocks of 4"):
        engine.submit(Sequence("a", 7, 1, prefix_ids=(1, 2)), 0.0)
    with pytest.raises(UsageError, match="priority 1"):
        engine.submit(Sequence("a", 7, 1, priority=1), 0.0)
    with pytest.raises(ValueError, match="more than the 4 it declared"):
        Sequence("a", 7, 5, max_output_tokens=4)


@pytest.mark.parametrize(
    ("scheduling_policy", "told"),
    [
        ("priority", "+low +top !low -top +low -low"),
        ("fcfs", "+low +top !top -low +top -top"),
    ],
)
def test_priority_gives_up_the_worst_though_it_came_first(
    scheduling_policy: str, told: str
) -> None:
    """Both need a third block of four; fcfs gives up whoever was admitted last."""
    limits = EngineLimits(
        max_num_seqs=2, max_num_batched_tokens=64, kv_blocks=4, block_size=2,
        max_model_len=8,
    )  # fmt: skip
    engine = Engine(limits, FLAT, Random(1), scheduling_policy=scheduling_policy)
    ranks = (2, 0) if scheduling_policy == "priority" else (0, 0)
    engine.submit(Sequence("low", 3, 4, priority=ranks[0]), 0.0)
    engine.submit(Sequence("top", 3, 4, priority=ranks[1]), 0.5)
    words: list[str] = []
    while engine.due is not None:
        step = engine.step()
        words += step.line().split()[7:] if step else []
    assert " ".join(words) == told
    assert engine.preemptions == 1


def test_priority_is_by_rank_then_by_arrival() -> None:
    """A batch of one: the lower rank first, among equals who came first."""
    limits = EngineLimits(
        max_num_seqs=1, max_num_batched_tokens=64, kv_blocks=16, block_size=4,
        max_model_len=64,
    )  # fmt: skip
    engine = Engine(limits, FLAT, Random(1), scheduling_policy="priority")
    ranks = {"a": 5, "b": 1, "c": 0, "d": 1, "e": -1}
    queued = [Sequence(name, 1, 1, priority=rank) for name, rank in ranks.items()]
    for i, sequence in enumerate(queued):
        engine.submit(sequence, i / 10)
    while engine.due is not None:
        engine.step()
    order = sorted(queued, key=lambda s: s.last_s or 0.0)
    assert "".join(s.id for s in order) == "aecbd"


# ------------------------------------------------------------- routing by prefix


def test_prefix_affine_sends_the_same_head_to_the_same_engine() -> None:
    """Only the first block counts; ids in a row are spread; no block, no affinity."""
    fleet = build_fleet(LIMITS, FLAT, engines=8, seed=0, router="prefix_affine")
    homes = [fleet.route(Sequence("a", 8, 1, prefix_ids=(i, 9))) for i in range(64)]
    again = [fleet.route(Sequence("a", 8, 1, prefix_ids=(i,))) for i in range(64)]
    assert homes == again
    assert len(set(homes)) == 8
    plain = [fleet.route(Sequence("a", 8, 1)) for _ in range(8)]
    assert plain == list(range(8))


@pytest.mark.parametrize("extra", [0, 1])
def test_prefix_affine_leaves_an_overloaded_engine(extra: int) -> None:
    """Only home has w waiting, of weight Q: w Q <= 1.25 w Q / 8 + Q while w is 1."""
    fleet = build_fleet(LIMITS, FLAT, engines=8, seed=0, router="prefix_affine")
    home = fleet.route(Sequence("a", 8, 1, prefix_ids=(3,)))
    for _ in range(1 + extra):
        fleet.engines[home].submit(Sequence("x", 1, 1), 0.0)
    load = QUEUE_WEIGHT * (1 + extra)
    assert (load > AFFINITY_BOUND * load / 8 + QUEUE_WEIGHT) == bool(extra)
    chosen = fleet.route(Sequence("b", 8, 1, prefix_ids=(3,)))
    assert (chosen != home) == bool(extra)
