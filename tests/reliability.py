"""docs/reliability.md, made of the fault matrix.

python tests/reliability.py            prints it
python tests/reliability.py --write    writes it
"""

import sys
from pathlib import Path
from typing import Final

from fault_matrix import MATRIX, Row

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
_HEAD: Final = """\
# Under fire

What goes wrong around a run, what loadstone does then, what is lost, and how long
until all is normal. Each row is proven by tests with real processes and sockets on
one machine, named at the end. After each of them the run folder passes `loadstone
audit`: every request that was planned is recorded, dropped, unknown or undue, once.

"Until normal" is a bound that the tests assert on any machine. What is under
"measured" was read twice, on a machine of two cores that others used too, off
`pytest tests/faults -n 0 -rP`, which prints it anew. Where a machine does not allow
what a row needs, its test is skipped and says why.

This page is made by `python tests/reliability.py --write`.
"""
_TAIL: Final = """\
## What to do at night

The table at a run's end, and `errors` and `errors_between_s` of `summary.json`, say
what failed, how often, and between which seconds of the run (by when requests ended):
look into the server's log
at the run's start (`t0_epoch` in `environment.json`) plus those. `Cause` lines say
what an error means and what to do. A run without a summary is made whole as far as it
goes by
`loadstone report DIR`; `loadstone audit DIR` says whether anything is missing without
a word.

## Not covered

- No kernel's netem or packet filter is used: delay, loss, reordering, doubles and cuts
  are made by a process that carries packets between two namespaces.
- The clock is set for processes, not for the machine: timers of the kernel that go by
  the time of day do not see it. While Locust's workers tell their clocks, in the
  first seconds of a
  distributed run, a clock that is set shifts that worker's start.
- Spans that OpenTelemetry could not hand over are not kept for later.
"""


def document() -> str:
    """Return the page."""
    parts = [_HEAD]
    for part, rows in MATRIX.items():
        parts.append(f"## {part}\n")
        parts += [
            "| fault | what happens | what is lost | until normal | measured |",
            "|---|---|---|---|---|",
        ]
        parts += [_line(row) for row in rows]
        parts.append("")
    parts.append(_TAIL)
    parts += ["## Which test proves it\n", "| fault | tests | needs |", "|---|---|---|"]
    parts += [_proof(row) for rows in MATRIX.values() for row in rows]
    return "\n".join(parts) + "\n"


def _line(row: Row) -> str:
    fault = f'<a id="{row.id}"></a>{row.fault}'
    return f"| {fault} | {row.happens} | {row.lost} | {row.back} | {row.measured} |"


def _proof(row: Row) -> str:
    tests = ", ".join(f"`{test}`" for test in row.tests)
    return f"| [{row.id}](#{row.id}) | {tests} | {row.needs} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(document(), encoding="utf-8")
    else:
        sys.stdout.write(document())
