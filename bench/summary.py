"""What it costs to sum a run up: a million rows from disk to figures.

    python bench/summary.py [--rows N]

Writes synthetic rows of an hour's run (lognormal, one in a hundred failed) to a
temporary folder, and reads them as `loadstone report` does. CPU seconds and
microseconds a row for the parts in turn: rows from disk, rows to a fold, fold to
figures; beside them what the standard library's JSON takes for the first; and the
greatest memory. Tests hold the figures, this holds the price.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from msgspec.structs import replace

from loadstone.buckets import bucket_of
from loadstone.runs import read_rows
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource, Truth
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import Fold

SLOS = (Slo("ttft_intended_s", "p99", 1.0), Slo("tpot_s", "p99", 0.05))
HOUR_S = 3600.0


def rows(n: int) -> Iterator[RequestRecord]:
    """Yield rows as a run against the mock leaves them."""
    rng = Random(0)
    for i in range(n):
        due = HOUR_S * i / n
        first = due + 0.001 + rng.lognormvariate(-2, 0.5)
        tokens = rng.randint(50, 400)
        last = first + tokens * rng.lognormvariate(-4, 0.1)
        row = RequestRecord(
            id=f"chat-{i}", scenario="chat", intended_s=due, sent_s=due + 0.001,
            first_s=first, last_s=last, end_s=last + 0.0002, first_output_s=first,
            recv_lag_s=0.0001, worst_recv_lag_s=0.0008, status=200,
            asked_input_tokens=512, asked_output_tokens=tokens, input_tokens=512,
            output_tokens=tokens, first_event_tokens=1, events=tokens,
            tokens_source=TokensSource.USAGE, finish_reason="length",
            tenant=rng.choice(("a", "b")), outcome=Outcome.OK,
            icl=((bucket_of(0.01), tokens // 2), (bucket_of(0.02), tokens // 2)),
            truth=Truth(due, due + 0.1, due + 0.1, due + 1.0, engine=0),
        )  # fmt: skip
        failed = {"outcome": Outcome.FAILED, "error": "timeout"}
        yield replace(row, **failed) if i % 100 == 0 else row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.jsonl"
        with path.open("w", encoding="utf-8") as lines:
            lines.writelines(row.to_line() for row in rows(n))
        size = path.stat().st_size
        began = time.process_time()
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                json.loads(line)
        parsed = time.process_time() - began
        began = time.process_time()
        for _ in read_rows(Path(folder)):
            pass
        read = time.process_time() - began
        fold = Fold(SLOS)
        began = time.process_time()
        for row in read_rows(Path(folder)):
            fold.add(row)
        folded = time.process_time() - began
        began = time.process_time()
        summary = fold.summary()
        summed = time.process_time() - began
    print(f"{n:,} rows, {size / n:.0f} bytes each; {summary['window']['how']} window")
    print(f"{'part':32s} {'CPU s':>8s} {'us/row':>8s}")
    parts = {
        "rows from disk": read,
        "fold of rows": folded - read,
        "figures of the fold": summed,
        "all": folded + summed,
    }
    parts["(JSON of the standard library)"] = parsed
    for part, seconds in parts.items():
        print(f"{part:32s} {seconds:8.2f} {1e6 * seconds / n:8.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"greatest memory {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
