"""When to look for garbage, in a process whose requests leave none.

Neither a request that the mock answers nor one that the load generator sends leaves a
cycle, so reference counts free both. Python's collector counts what is made more than
what is freed, though: as requests in flight become more it looks through all of them
again and again and finds nothing, and nothing is read or written meanwhile. With 7,400
answers in flight that took the mock a quarter of a second every few seconds.

Never would be wrong too: a closed transport of asyncio is a cycle of 1.6 KB, a user's
own flow may leave any, and hours are long. So a look is due when more objects were made
than what is in flight can have in use.
"""

from typing import Final

LEAST: Final = 100_000
"""Objects that are let pass whatever is in flight: 20 to 40 ms of looking, and 20 MB of
closed transports."""
IN_USE: Final = 128
"""Objects that are let pass for each in flight: the mock has 96 for a connection that
streams, the load generator 60 for a request."""


def is_due(grown: int, in_flight: int) -> bool:
    """Say whether to look, if `grown` objects were made and not freed since the last.

    That is the first of `gc.get_count()`, which counts also while the collector is off.
    """
    return grown >= LEAST + IN_USE * in_flight
