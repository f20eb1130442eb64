"""Where an engine is: which GPUs it has, in which VM, in which rack.

GPUs are counted off: the first engine has the first ones, a VM is full before the next
begins, and so is a rack.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..catalog.presets import Preset


@dataclass(frozen=True, slots=True)
class Place:
    """One GPU: its number within its VM, and the names of VM and rack."""

    gpu: int
    vm_number: int
    rack_number: int

    @property
    def vm(self) -> str:
        """The VM's name, as its host name would be."""
        return f"mock-vm-{self.vm_number}"

    @property
    def rack(self) -> str:
        """The rack's name."""
        return f"mock-rack-{self.rack_number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """How many GPUs make an engine and a VM, and how many VMs a rack."""

    gpus_per_engine: int
    gpus_per_vm: int
    vms_per_rack: int

    @classmethod
    def of(cls, machine: Preset) -> "Topology":
        """Take the counts from the catalog's."""
        return cls(
            gpus_per_engine=machine.tensor_parallel,
            gpus_per_vm=machine.gpus_per_vm,
            vms_per_rack=machine.vms_per_rack,
        )

    def places(self, engine: int) -> Iterator[Place]:
        """Yield where the GPUs of an engine are, given its index."""
        first = engine * self.gpus_per_engine
        for number in range(first, first + self.gpus_per_engine):
            vm, gpu = divmod(number, self.gpus_per_vm)
            yield Place(gpu, vm, vm // self.vms_per_rack)
