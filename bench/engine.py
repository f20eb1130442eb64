"""What the emulated engine costs: tokens per CPU-second, time per step, memory.

Three tables, each with ratios within one run, for one machine is not another:

* `rack`: 72 engines of a preset in virtual time, KV blocks on. MLPerf's lengths, all at
  t = 0; then the same with prefix ids, half of each prompt shared with 1 in 50 others,
  once with the cache off and once on; then each policy.
* `step`: one engine that only decodes, by batch: a step's cost must not depend on it.
* `memory`: a long run at a steady rate, in equal parts; what the interpreter holds
  after each must not grow. Half of each prompt is new, so the cache turns over.

    python bench/engine.py
    python bench/engine.py --engines 8 --requests 500 --hours 1
"""

import argparse
import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from random import Random
from typing import Any

from loadstone.catalog.presets import load_preset
from loadstone.catalog.workloads import load_lengths
from loadstone.engine.core import Engine
from loadstone.engine.fleet import build_fleet
from loadstone.engine.sequence import Sequence
from loadstone.engine.virtual import plain_sequence, serve
from loadstone.physics.limits import EngineLimits
from loadstone.traffic.request import Request

MACHINE = load_preset("azure-nd-gb300-v6", "llama-2-70b")
SHARING = 50
"""Requests that have the first half of their prompt in common."""
PARTS = 6
"""The long run is looked at so many times."""


def lengths(seed: int) -> Iterator[tuple[int, int]]:
    """Yield MLPerf's prompt and output lengths, drawn from `seed`."""
    rng = Random(seed)
    prompts = load_lengths("mlperf-llama2-70b-input")
    answers = load_lengths("mlperf-llama2-70b-output")
    while True:
        yield prompts.draw(rng), answers.draw(rng)


def with_prefix(request: Request) -> Sequence:
    """Return its sequence: half the prompt is its group's, the rest its own."""
    blocks = request.input_tokens // MACHINE.limits.block_size
    group, shared = -(1 + request.index % SHARING) << 12, blocks // 2
    own = request.index << 12
    ids = (*range(group, group + shared), *range(own, own + blocks))
    return Sequence(
        request.id, request.input_tokens, request.output_tokens,
        prefix_ids=ids[:blocks],
    )  # fmt: skip


def run_rack(
    engines: int,
    requests: list[Request],
    sequence_of: Callable[[Request], Sequence],
    **setup: Any,
) -> tuple[float, float, float]:
    """Return tokens per CPU-second, CPU us per step, and the share of cached tokens."""
    fleet = build_fleet(MACHINE.limits, MACHINE.law, engines=engines, seed=1, **setup)
    gc.collect()
    start = time.process_time()
    deque(serve(fleet, requests, sequence_of=sequence_of), maxlen=0)
    cpu = time.process_time() - start
    tokens = sum(engine.generated_tokens for engine in fleet.engines)
    steps = sum(engine.steps for engine in fleet.engines)
    queries = sum(engine.prefix_cache_queries for engine in fleet.engines)
    hits = sum(engine.prefix_cache_hits for engine in fleet.engines)
    return tokens / cpu, cpu / steps * 1e6, hits / queries if queries else 0.0


def rack(engines: int, per_engine: int) -> None:
    """Print the first table."""
    requests = [
        Request(i, 0.0, *pair)
        for i, pair in enumerate(islice(lengths(5), engines * per_engine))
    ]
    cases: list[tuple[str, Callable[[Request], Sequence], dict[str, Any]]] = [
        ("vllm, no prefixes", plain_sequence, {}),
        ("vllm, prefixes, cache off", with_prefix, {"prefix_caching": False}),
        ("vllm, prefixes, cache on", with_prefix, {}),
        ("trtllm_max_util", plain_sequence, {"policy": "trtllm_max_util"}),
        ("trtllm_no_evict", plain_sequence, {"policy": "trtllm_no_evict"}),
        ("vllm by priority", plain_sequence, {"scheduling_policy": "priority"}),
    ]
    print(f"{engines} engines, {len(requests)} requests, all at t = 0")
    print("case                       Mtokens/CPU-s  ratio  CPU us/step  cached")
    first = 0.0
    for name, sequence_of, setup in cases:
        rate, step, cached = run_rack(engines, requests, sequence_of, **setup)
        first = first or rate
        print(
            f"{name:26} {rate / 1e6:13.1f}  {rate / first:5.2f}"
            f"  {step:11.1f}  {cached:6.1%}"
        )


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
    """Print the second table: the best of five, taken in turns."""
    batches = (64, 512, 4096)
    best: dict[tuple[int, bool], float] = {}
    for _ in range(5):
        for key in ((b, prefix) for b in batches for prefix in (False, True)):
            us = step_cost(key[0], steps, prefix=key[1])
            best[key] = min(us, best.get(key, us))
    print("\nbatch  CPU us/step  ratio   with prefix ids  ratio")
    for b in batches:
        plain, known = best[b, False], best[b, True]
        print(
            f"{b:5}  {plain:11.2f}  {plain / best[64, False]:5.2f}"
            f"   {known:15.2f}  {known / best[64, True]:5.2f}"
        )


def memory(hours: float, rate: float) -> None:
    """Print the third table: one engine with a small cache that turns over."""
    limits = replace(MACHINE.limits, kv_blocks=4096)
    fleet_of = build_fleet(limits, MACHINE.law, engines=1, seed=1)
    rng, pairs, now = Random(2), lengths(3), 0.0

    def arrivals() -> Iterator[Request]:
        nonlocal now
        for i in count():
            now += rng.expovariate(rate)
            if now > hours * 3600:
                return
            yield Request(i, now, *next(pairs))

    served = serve(fleet_of, arrivals(), sequence_of=with_prefix)
    (engine,) = fleet_of.engines
    tracemalloc.start()
    print(f"\none engine, {hours:g} h at {rate:g} requests/s, half of each prompt new")
    print("until h  requests  KiB held  blocks known")
    done = 0
    for part in range(1, PARTS + 1):
        for one in served:
            done += 1
            assert one.sequence.last_s is not None
            if one.sequence.last_s >= part * hours * 3600 / PARTS:
                break
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / 1024
        known = engine._pool.known  # noqa: SLF001
        print(f"{part * hours / PARTS:7.1f}  {done:8}  {held:8.0f}  {known:12}")
    tracemalloc.stop()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", type=int, default=72)
    parser.add_argument("--requests", type=int, default=3000, help="for each engine")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=3.0, help="of virtual time")
    parser.add_argument("--rate", type=float, default=10.0, help="requests/s")
    asked = parser.parse_args()
    rack(asked.engines, asked.requests)
    step_table(asked.steps)
    memory(asked.hours, asked.rate)


if __name__ == "__main__":
    main()
