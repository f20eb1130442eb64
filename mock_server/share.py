"""How a rack is divided over worker processes: whole VMs, and limits in proportion."""

from dataclasses import dataclass
from typing import Self

from loadstone.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One worker's VMs: `vms` of `of_vms`, the first of them number `first_vm`.

    All workers' shares are the whole, without overlap, and no two of them differ by
    more than one VM.
    """

    worker: int
    workers: int
    of_vms: int

    def __post_init__(self) -> None:
        """Refuse a worker without a VM; raises `UsageError`."""
        if not 0 <= self.worker < self.workers <= self.of_vms:
            raise UsageError(
                f"{self.of_vms} VMs cannot be divided over {self.workers} workers",
                hint="each worker needs a VM of its own: more --vms or fewer --workers",
            )

    @classmethod
    def all_of(cls, vms: int, workers: int) -> list[Self]:
        """Divide so many VMs; raises `UsageError` if a worker would have none."""
        return [
            cls(worker=worker, workers=workers, of_vms=vms) for worker in range(workers)
        ]

    @property
    def first_vm(self) -> int:
        """The number of its first VM."""
        return self.worker * self.of_vms // self.workers

    @property
    def vms(self) -> int:
        """How many VMs it has."""
        return (self.worker + 1) * self.of_vms // self.workers - self.first_vm

    @property
    def fraction(self) -> float:
        """Its part of the VMs, above 0 and at most 1."""
        return self.vms / self.of_vms

    def of(self, limit: int) -> int:
        """Return its part of a limit, as its part of the VMs; the parts add up."""
        end = self.first_vm + self.vms
        return limit * end // self.of_vms - limit * self.first_vm // self.of_vms
