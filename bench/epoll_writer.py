"""The bare epoll writer in Python, for machines without a C compiler.

It does what `epoll_writer.c` does, at a higher cost: a ratio to it flatters the server.

    python bench/epoll_writer.py STREAMS ENGINES STEP_US SIZE
"""

import contextlib
import os
import select
import socket
import sys
import time

from mock_server.capacity import raise_descriptor_limit


def main() -> None:
    """Accept the streams, then write records until stdin ends."""
    streams, engines = int(sys.argv[1]), int(sys.argv[2])
    step, record = float(sys.argv[3]) / 1e6, b"x" * int(sys.argv[4])
    raise_descriptor_limit()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    socks = [listener.accept()[0] for _ in range(streams)]
    poll = select.epoll()
    for sock in socks:
        os.set_blocking(sock.fileno(), False)
        poll.register(sock.fileno(), select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    groups = [[s.fileno() for s in socks[e::engines]] for e in range(engines)]
    start, written = time.monotonic(), 0
    due = [start + step * (1 + e) / engines for e in range(engines)]
    while True:
        for fd, _ in poll.poll(0.001):
            if not os.read(fd, 4096):
                return
            if fd == 0:
                print(f"{time.process_time():.6f} {written}", flush=True)
        now = time.monotonic()
        for engine, group in enumerate(groups):
            if due[engine] > now:
                continue
            due[engine] += step
            for fd in group:
                with contextlib.suppress(BlockingIOError):
                    written += os.write(fd, record) == len(record)


if __name__ == "__main__":
    main()
