"""What the master and its workers send each other, beside what Locust sends.

Locust's channel keeps the order of messages between two processes, and drops none while
both are connected.
"""

from typing import Final

CLOCK: Final = "loadstone_clock"
"""Master: what does your clock show? Worker: `shown`, in seconds since the epoch."""
GO: Final = "loadstone_go"
"""Master: your order, ahead of Locust's own spawn message."""
REFUSED: Final = "loadstone_refused"
"""Worker: I cannot carry out your order, and `why`."""
LATE: Final = "loadstone_late"
"""Master: there is no share for you in the run that is on."""
HALT: Final = "loadstone_halt"
"""Master: close your share now."""
DONE: Final = "loadstone_done"
"""Worker: my share has ended and its `rows` are on disk; my last totals, `stats`."""
FETCH: Final = "loadstone_fetch"
"""Master: your rows from `offset` on, which are on no disk that I see."""
CHUNK: Final = "loadstone_chunk"
"""Worker: a chunk of them, from `offset` on."""
REPORT: Final = "loadstone"
"""The key of a worker's totals in each of Locust's reports."""
