"""Memory that the supervisor owns and lends: memfd on the CPU, cudaMalloc + IPC on the GPU.

A CUDA IPC handle opens the whole driver allocation, and small allocations share one: so every buffer is a
cudaMalloc of its own in multiples of 2 MiB, and a borrower sees nothing but what it was lent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any

from cudaforge.engine.protocol import (
    IpcHandle,
    Spec,
    cuda_check,
    cuda_tensor,
    cudart,
    layout,
    sealed_memory,
    view,
)
from cudaforge.errors import EvaluatorError

if TYPE_CHECKING:
    import torch

GRANULE = 2 << 20
GUARD = 4096
"""Bytes of poison before, between and behind the outputs in a landing buffer."""
INPUT_GUARD = 1024
"""The same around lent inputs."""
POISON = 0xFF
"""Every byte of fresh landing memory: NaN in every float format, -1 in every integer."""


class NoRoomError(EvaluatorError):
    """The device has too little memory left."""


class Buffer:
    """Lendable memory with tensors laid out in it. `close()` gives it back; views must be gone by then."""

    def __init__(self, specs: list[Spec], device: str, guard: int = 0) -> None:
        self.slots, size = layout(specs, guard)
        self.guard = guard
        self.device = device
        self.nbytes = (size + GRANULE - 1) // GRANULE * GRANULE
        self.fd: int | None = None
        self._pointer = 0
        if device == "cpu":
            self.fd = sealed_memory("cudaforge", self.nbytes)
            import torch

            self.base: torch.Tensor = torch.frombuffer(mmap.mmap(self.fd, self.nbytes), dtype=torch.uint8)
        else:
            self._pointer = _cuda_malloc(self.nbytes, device)
            self.base = cuda_tensor(self._pointer, self.nbytes, device)

    def lend(self) -> tuple[dict[str, Any], int | None]:
        """What `protocol.open_lent` takes in the borrower: a descriptor, and a file descriptor on the CPU."""
        if self.fd is not None:
            return {"kind": "shm", "bytes": self.nbytes}, self.fd
        handle = IpcHandle()
        pointer = ctypes.c_void_p(self._pointer)
        cuda_check(cudart().cudaIpcGetMemHandle(ctypes.byref(handle), pointer), "cudaIpcGetMemHandle")
        return {"kind": "ipc", "bytes": self.nbytes, "handle": bytes(handle).hex(), "device": self.device}, None

    def wire(self) -> list[list[Any]]:
        """The slots as JSON."""
        return [slot.wire() for slot in self.slots]

    def tensor(self, index: int) -> torch.Tensor:
        """The tensor at slot `index`; shares memory."""
        return view(self.base, self.slots[index])

    def raw(self, index: int) -> torch.Tensor:
        """The bytes of slot `index`; shares memory."""
        slot = self.slots[index]
        return self.base[slot.offset : slot.offset + slot.nbytes]

    def poison(self, first: int | None = None) -> None:
        """Makes every byte POISON, guards included; of the `first` slots and around them only."""
        if first is None:
            self.base.fill_(POISON)
        elif first:
            last = self.slots[first - 1]
            self.base[: last.offset + last.nbytes + self.guard].fill_(POISON)

    def guards_intact(self, first: int | None = None) -> bool:
        """Whether nothing was written outside the slots since `poison`; of the `first` slots and around them only."""
        if first == 0:
            return True
        edge = 0
        for slot in self.slots[:first]:
            if not bool((self.base[edge : slot.offset] == POISON).all()):
                return False
            edge = slot.offset + slot.nbytes
        return bool((self.base[edge:] == POISON).all()) if first is None else self._poisoned(edge)

    def _poisoned(self, edge: int) -> bool:
        return bool((self.base[edge : edge + self.guard] == POISON).all())

    def close(self) -> None:
        """Frees the memory. Idempotent."""
        import torch

        self.base = torch.empty(0, dtype=torch.uint8)
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        if self._pointer:
            torch.cuda.synchronize()
            cuda_check(cudart().cudaFree(ctypes.c_void_p(self._pointer)), "cudaFree")
            self._pointer = 0


def free_bytes(device: str) -> int:
    """Bytes of a GPU's memory that nobody has."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def _cuda_malloc(nbytes: int, device: str) -> int:
    import torch

    pointer = ctypes.c_void_p()
    with torch.cuda.device(device):
        code = cudart().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        if code == 2:
            torch.cuda.empty_cache()
            code = cudart().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
    if code == 2 or pointer.value is None:
        raise NoRoomError(
            f"the GPU has no room for a buffer of {nbytes / 2**30:.2f} GiB.", "Free the GPU, or use a smaller workload."
        )
    cuda_check(code, "cudaMalloc")
    return pointer.value
