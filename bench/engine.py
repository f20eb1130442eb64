"""What the emulated engine costs: tokens per CPU-second, time per step, memory.

Four tables, each with ratios within one run, for one machine is not another:

* `rack`: 72 engines of a preset in virtual time with KV blocks, and the listener that
  `loadstone simulate` sets: each step into a histogram of gaps between tokens, each
  request noted as it ends; the garbage collector as `simulate` has it, and as Python
  does. MLPerf's lengths, twice: all at t = 0, which is the most that can be queued, and
  a Poisson stream whose requests are made as they arrive. Prefix ids are a prompt's
  own, or begin with one of 50 system prompts of 512 tokens that come on top, or half of
  each prompt is shared with 1 in 50 others, whatever its length. Ids are drawn before
  the clock starts: they are the load's. The best of `--times` rounds; the ratio to the
  first row is the median over the rounds.
* `step`: one engine that only decodes, by batch: a step's cost must not depend on it.
* `memory`: four engines through a day at a moderate rate; what the process holds must
  not grow. Half of each prompt is new, so the caches turn over.

    python bench/engine.py
    python bench/engine.py --engines 8 --requests 500 --hours 1
"""

import argparse
import gc
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from loadstone.buckets import LogHistogram
from loadstone.catalog.presets import load_preset
from loadstone.catalog.workloads import load_lengths
from loadstone.engine.core import Engine
from loadstone.engine.disaggregated import build_disaggregated
from loadstone.engine.fleet import Cluster, build_fleet
from loadstone.engine.sequence import Sequence, Step
from loadstone.engine.virtual import plain_sequence, rare_collections, serve
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import Speculation
from loadstone.physics.transfer import KvTransfer
from loadstone.traffic.request import Request

MACHINE = load_preset("azure-nd-gb300-v6", "llama-2-70b")
SHARING = 50
"""Requests that have the first half of their prompt in common."""
TEXTS = [tuple(range(-(1 + i) << 12, -i << 12)) for i in range(SHARING)]
"""What they share, as a trace would hold it: one object for one id."""
SYSTEM_BLOCKS = 16
"""Of a system prompt, in the rows that have one."""
STEADY_RATE = 48.0
"""Requests a second and engine of the steady stream: some 500 are in flight on each."""
AS_PYTHON = ", Python's collector"
"""Ends the names of rows in which collections are as often as by default."""
PARTS = 8
"""The long run is looked at so many times."""
NVLINK = KvTransfer(kv_bytes_per_token=163_840.0, bytes_per_s=900e9, setup_s=0.001)
"""FP8 KV of a 70B model over NVLink 5, one way; the set-up is assumed."""

Ids = tuple[int, ...]


def lengths(seed: int) -> Iterator[tuple[int, int]]:
    """Yield MLPerf's prompt and output lengths, drawn from `seed`."""
    rng = Random(seed)
    prompts = load_lengths("mlperf-llama2-70b-input")
    answers = load_lengths("mlperf-llama2-70b-output")
    while True:
        yield prompts.draw(rng), answers.draw(rng)


def half_shared(index: int, input_tokens: int) -> Ids:
    """Return a prompt's ids: half of it is its group's, the rest its own."""
    blocks = input_tokens // MACHINE.limits.block_size
    shared = blocks // 2
    return TEXTS[index % SHARING][:shared] + own(index, blocks - shared)


def own(index: int, blocks: int) -> Ids:
    """Return ids that no other request has."""
    return tuple(range(index << 12, (index << 12) + blocks))


def with_prefix(request: Request) -> Sequence:
    """Return its sequence, half of its prompt shared."""
    return Sequence(
        request.id, request.input_tokens, request.output_tokens,
        prefix_ids=half_shared(request.index, request.input_tokens),
    )  # fmt: skip


Drawn = list[tuple[float, int, int]]
"""Of each request, when it arrives and how many tokens it has."""


def requests_of(drawn: Drawn) -> Iterator[Request]:
    """Make each as it is asked for."""
    for i, row in enumerate(drawn):
        yield Request(i, *row)


def known_ids(drawn: Drawn) -> dict[str, Callable[[Request], Sequence]]:
    """Return what makes sequences of each kind of prefix; ids are drawn here."""
    size = MACHINE.limits.block_size
    own_ids = [own(i, tokens // size) for i, (_, tokens, _) in enumerate(drawn)]
    halves = [half_shared(i, tokens) for i, (_, tokens, _) in enumerate(drawn)]
    begun = [TEXTS[i % SHARING][:SYSTEM_BLOCKS] + ids for i, ids in enumerate(own_ids)]

    def sequence(request: Request, ids: list[Ids], more: int = 0) -> Sequence:
        return Sequence(
            request.id, request.input_tokens + more, request.output_tokens,
            prefix_ids=ids[request.index],
        )  # fmt: skip

    return {
        "own": partial(sequence, ids=own_ids),
        "system": partial(sequence, ids=begun, more=SYSTEM_BLOCKS * size),
        "halves": partial(sequence, ids=halves),
    }


def engines_of(cluster: Cluster) -> list[Engine]:
    """Return the engines among the actors of a cluster."""
    return [actor for actor in cluster.actors if isinstance(actor, Engine)]


class Cost(NamedTuple):
    """Of one run: what it took, and what the engines did in it."""

    cpu_s: float
    tokens: int
    requests: int
    steps: int
    cached: float
    """Share of prompt tokens."""

    @property
    def rate(self) -> float:
        """Tokens per CPU-second."""
        return self.tokens / self.cpu_s


Case = tuple[Callable[[Request], Sequence], Callable[[], Cluster]]


def run_rack(
    cluster: Cluster, drawn: Drawn, sequence_of: Callable[[Request], Sequence]
) -> Cost:
    """Serve the requests once."""
    gaps = LogHistogram()

    def on_step(_: int, step: Step) -> None:
        if step.decoding:
            gaps.add(step.end_s - step.start_s, step.decoding)

    arrivals = requests_of(drawn)
    gc.collect()
    start = time.process_time()
    deque(serve(cluster, arrivals, sequence_of=sequence_of, on_step=on_step), maxlen=0)
    cpu = time.process_time() - start
    engines = engines_of(cluster)
    tokens = sum(engine.generated_tokens for engine in engines)
    assert tokens == sum(output_tokens for _, _, output_tokens in drawn)
    steps = sum(engine.steps for engine in engines)
    queries = sum(engine.prefix_cache_queries for engine in engines)
    hits = sum(engine.prefix_cache_hits for engine in engines)
    return Cost(cpu, tokens, len(drawn), steps, hits / queries if queries else 0.0)


def rack_table(title: str, drawn: Drawn, cases: dict[str, Case], times: int) -> None:
    """Run each case so many times, in turns, and print a table."""
    rounds: list[dict[str, Cost]] = []
    # What the load is made of is no burden on the collector.
    gc.collect()
    gc.freeze()
    for _ in range(times):
        costs = {}
        for name, (sequence_of, build) in cases.items():
            with nullcontext() if name.endswith(AS_PYTHON) else rare_collections():
                costs[name] = run_rack(build(), drawn, sequence_of)
        rounds.append(costs)
    gc.unfreeze()
    print(f"{title}\n{'case':34} Mtokens/CPU-s  ratio  us/request  steps  cached")
    first = next(iter(cases))
    for name in cases:
        best = max((costs[name] for costs in rounds), key=lambda cost: cost.rate)
        ratio = median(costs[name].rate / costs[first].rate for costs in rounds)
        print(
            f"{name:34} {best.rate / 1e6:13.1f}  {ratio:5.2f}"
            f"  {best.cpu_s / best.requests * 1e6:10.1f}"
            f"  {best.steps / best.requests:5.2f}  {best.cached:6.1%}"
        )
    print()


def prefix_cases(drawn: Drawn, fleet: Callable[..., Cluster]) -> dict[str, Case]:
    """Return the prefix cache's rows, by kind of prefix."""
    known = known_ids(drawn)
    return {
        "no prefixes": (plain_sequence, fleet),
        "own prefixes": (known["own"], fleet),
        "system prompts, cache off": (
            known["system"], partial(fleet, prefix_caching=False),
        ),
        "system prompts": (known["system"], fleet),
        "halves shared, cache off": (
            known["halves"], partial(fleet, prefix_caching=False),
        ),
        "halves shared": (known["halves"], fleet),
        f"no prefixes{AS_PYTHON}": (plain_sequence, fleet),
        f"halves shared{AS_PYTHON}": (known["halves"], fleet),
    }  # fmt: skip


def offline(engines: int, per_engine: int, times: int) -> None:
    """Print the first table."""
    drawn = [(0.0, *pair) for pair in islice(lengths(5), engines * per_engine)]
    limits, law = MACHINE.limits, MACHINE.law
    fleet = partial(build_fleet, limits, law, engines=engines, seed=1)
    prefill = max(1, engines * 28 // 72)
    pools = partial(
        build_disaggregated, limits, law, NVLINK, prefill=prefill,
        decode=max(1, engines - prefill), seed=1,
    )  # fmt: skip
    roomy = replace(limits, max_num_batched_tokens=4 * limits.max_num_batched_tokens)
    drafting = partial(
        build_fleet, roomy, law, engines=engines, seed=1,
        speculation=Speculation(2.4, 3),
    )  # fmt: skip
    cases: dict[str, Case] = {
        **prefix_cases(drawn, fleet),
        "trtllm_max_util": (plain_sequence, partial(fleet, policy="trtllm_max_util")),
        "trtllm_no_evict": (plain_sequence, partial(fleet, policy="trtllm_no_evict")),
        "by priority": (plain_sequence, partial(fleet, scheduling_policy="priority")),
        "2.4 tokens a step, 3 drafts": (plain_sequence, drafting),
        "prefill and decode pools": (plain_sequence, pools),
        "the same, halves shared": (known_ids(drawn)["halves"], pools),
    }
    rack_table(
        f"{engines} engines, {len(drawn)} requests, all at t = 0", drawn, cases, times
    )


def steady(engines: int, per_engine: int, times: int) -> None:
    """Print the second table: about 500 sequences in flight on each engine."""
    rng, now = Random(7), 0.0
    drawn: Drawn = []
    rate = STEADY_RATE * engines
    for pair in islice(lengths(5), engines * per_engine):
        now += rng.expovariate(rate)
        drawn.append((now, *pair))
    limits, law = MACHINE.limits, MACHINE.law
    fleet = partial(build_fleet, limits, law, engines=engines, seed=1)
    rack_table(
        f"{engines} engines, {len(drawn)} requests, {rate:g} a second",
        drawn, prefix_cases(drawn, fleet), times,
    )  # fmt: skip


def step_cost(batch: int, steps: int, *, prefix: bool) -> float:
    """Return CPU us per step of an engine that decodes `batch` sequences."""
    limits = EngineLimits(
        max_num_seqs=batch, max_num_batched_tokens=1 << 20, kv_blocks=1 << 22,
        block_size=32, max_model_len=1 << 17,
    )  # fmt: skip
    engine = Engine(limits, MACHINE.law, Random(1))
    for i in range(batch):
        ids = tuple(range(i << 8, (i << 8) + 4)) if prefix else ()
        engine.submit(Sequence(str(i), 128 + i % 32, 1 << 16, prefix_ids=ids), 0.0)
    while engine.running < batch or engine.token_rate == 0.0:
        engine.step()
    for _ in range(64):
        engine.step()
    start = time.process_time()
    for _ in range(steps):
        engine.step()
    return (time.process_time() - start) / steps * 1e6


def step_table(steps: int) -> None:
    """Print the third table: the best of five, taken in turns."""
    batches = (64, 512, 4096)
    best: dict[tuple[int, bool], float] = {}
    for _ in range(5):
        for key in ((b, prefix) for b in batches for prefix in (False, True)):
            us = step_cost(key[0], steps, prefix=key[1])
            best[key] = min(us, best.get(key, us))
    print("batch  CPU us/step  ratio   with prefix ids  ratio")
    for b in batches:
        plain, known = best[b, False], best[b, True]
        print(
            f"{b:5}  {plain:11.2f}  {plain / best[64, False]:5.2f}"
            f"   {known:15.2f}  {known / best[64, True]:5.2f}"
        )


def resident_mib() -> float:
    """Return what the process holds in memory now; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0.0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(hours: float, rate: float) -> None:
    """Print the fourth table: four engines with small caches that turn over."""
    limits = replace(MACHINE.limits, kv_blocks=4096)
    fleet = build_fleet(limits, MACHINE.law, engines=4, seed=1, router="prefix_affine")
    rng, pairs, now = Random(2), lengths(3), 0.0

    def arrivals() -> Iterator[Request]:
        nonlocal now
        for i in count():
            now += rng.expovariate(rate)
            if now > hours * 3600:
                return
            yield Request(i, now, *next(pairs))

    served = serve(fleet, arrivals(), sequence_of=with_prefix)
    print(
        f"\nfour engines, {hours:g} h at {rate:g} requests/s, half of each prompt new"
    )
    print("until h   requests  resident MiB  objects  blocks known  in flight  CPU s")
    done, start = 0, time.process_time()
    for part in range(1, PARTS + 1):
        for one in served:
            done += 1
            assert one.sequence.last_s is not None
            if one.sequence.last_s >= part * hours * 3600 / PARTS:
                break
        gc.collect()
        known = sum(engine._pool.known for engine in fleet.engines)  # noqa: SLF001 - what it holds
        flying = sum(engine.running + engine.waiting for engine in fleet.engines)
        print(
            f"{part * hours / PARTS:7.2f}  {done:9}  {resident_mib():12.1f}"
            f"  {len(gc.get_objects()):7}  {known:12}  {flying:9}"
            f"  {time.process_time() - start:5.0f}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", type=int, default=72)
    parser.add_argument("--requests", type=int, default=3000, help="for each engine")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=24.0, help="of virtual time")
    parser.add_argument("--rate", type=float, default=8.0, help="requests/s")
    parser.add_argument("--times", type=int, default=3, help="runs of each case")
    asked = parser.parse_args()
    offline(asked.engines, asked.requests, asked.times)
    steady(asked.engines, asked.requests, asked.times)
    step_table(asked.steps)
    memory(asked.hours, asked.rate)


if __name__ == "__main__":
    main()
