"""Two hosts on one machine; the wire between them delays, loses, reorders and breaks.

Each host is a network namespace with a TUN device; what one sends, a thread here hands
to the other, late, or not at all. So both ends are the kernel's own TCP, and it takes
neither netem nor a packet filter, which many kernels lack.
"""

import ctypes
import fcntl
import heapq
import os
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_CLONE_NEWNET: Final = 0x40000000
_MTU: Final = 1500


class Host:
    """A network namespace: `prefix` is put before the command of who lives there."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.prefix = ("nsenter", f"--net=/run/netns/{name}")

    def open(self, peer: str) -> int:
        """Make the namespace and its device; returns the device's other end."""
        _ip("netns", "add", self.name)
        device = self._tun()
        inside = ("-netns", self.name)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "address", "add", self.address, "peer", peer, "dev", "wire")
        _ip(*inside, "link", "set", "wire", "up", "mtu", str(_MTU))
        return device

    def _tun(self) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        made: list[int] = []

        def make() -> None:
            # Of this thread alone, which ends with it.
            space = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            if libc.setns(space, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(space)
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(
                device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN_NO_PI)
            )
            made.append(device)

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        return made[0]

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wire(threading.Thread):
    """Carries packets both ways, each `delay_s` late; a share `loss` never arrives.

    A share `astray` takes `DETOUR_S` longer, so that what was sent later overtakes it;
    a share `twice` arrives once more, that much later.
    """

    DETOUR_S: Final = 0.01

    def __init__(
        self, ends: tuple[int, int], *, delay_s: float, loss: float, astray: float,
        twice: float,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.delay_s = delay_s
        self.loss = loss
        self.astray = astray
        self.twice = twice
        self.cut = False
        """While it is, nothing arrives, and nobody is told."""
        self.lost = 0
        self.overtaken = 0
        """Packets that arrived after one which was sent later, the same way."""
        self.doubled = 0
        self._ends = ends
        self._rng = Random(13)
        self._over = threading.Event()

    def run(self) -> None:
        """Carry until `close`."""
        one, other = self._ends
        across = {one: other, other: one}
        under_way: list[tuple[float, int, int, bytes]] = []
        newest = dict.fromkeys(self._ends, 0)
        number = 0
        with selectors.DefaultSelector() as waiting:
            for end in self._ends:
                waiting.register(end, selectors.EVENT_READ)
            while not self._over.is_set():
                pause = under_way[0][0] - time.monotonic() if under_way else 0.05
                for key, _ in waiting.select(max(pause, 0.0)):
                    packet = os.read(key.fd, 2 * _MTU)
                    if self.cut or self._rng.random() < self.loss:
                        self.lost += 1
                    else:
                        number += 1
                        for due in self._arrivals(time.monotonic()):
                            sent = (due, number, across[key.fd], packet)
                            heapq.heappush(under_way, sent)
                while under_way and under_way[0][0] <= time.monotonic():
                    _, its, end, packet = heapq.heappop(under_way)
                    self.overtaken += its < newest[end]
                    newest[end] = max(newest[end], its)
                    os.write(end, packet)

    def _arrivals(self, now: float) -> Iterator[float]:
        """Yield when a packet arrives that is sent now."""
        due = now + self.delay_s
        if self._rng.random() < self.astray:
            due += self.DETOUR_S
        yield due
        if self._rng.random() < self.twice:
            self.doubled += 1
            yield due + self.DETOUR_S

    def close(self) -> None:
        """Carry no more."""
        self._over.set()
        self.join()
        for end in self._ends:
            os.close(end)


@contextmanager
def two_hosts(
    *, delay_s: float = 0.0, loss: float = 0.0, astray: float = 0.0, twice: float = 0.0
) -> Iterator[tuple[Host, Host, Wire]]:
    """Give a client's host, a server's and the wire; skips where it cannot."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        pytest.skip("network namespaces take root, iproute2 and nsenter")
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun here: packets cannot be carried by a process")
    here = os.getpid()
    client = Host(f"ls-client-{here}", "10.213.0.1")
    server = Host(f"ls-server-{here}", "10.213.0.2")
    try:
        try:
            ends = client.open(server.address), server.open(client.address)
        except (OSError, subprocess.CalledProcessError, IndexError) as refused:
            pytest.skip(f"no network namespaces here: {refused}")
        wire = Wire(ends, delay_s=delay_s, loss=loss, astray=astray, twice=twice)
        wire.start()
        try:
            yield client, server, wire
        finally:
            wire.close()
    finally:
        client.close()
        server.close()
