"""Memory that the supervisor owns and lends: memfd on the CPU, cudaMalloc + IPC on the GPU.

A CUDA IPC handle opens the whole driver allocation, and small allocations share one: so every buffer is a
cudaMalloc of its own in multiples of 2 MiB, and a borrower sees nothing but what it was lent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any

from cudaforge.engine.protocol import IpcHandle, Slot, Spec, cuda_check, cuda_tensor, cudart, layout, view
from cudaforge.errors import EvaluatorError

if TYPE_CHECKING:
    import torch

GRANULE = 2 << 20
GUARD = 4096
"""Bytes of poison before, between and behind the outputs in a landing buffer."""
POISON = 0xFF
"""Every byte of fresh landing memory: NaN in every float format, -1 in every integer."""


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
            self.fd = os.memfd_create("cudaforge", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, self.nbytes)
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

    def at(self, slot: Slot) -> torch.Tensor:
        """The tensor at any slot within the buffer; shares memory."""
        return view(self.base, slot)

    def poison(self) -> None:
        """Makes every byte POISON, guards included."""
        self.base.fill_(POISON)

    def guards_intact(self) -> bool:
        """Whether nothing was written outside the slots since `poison`."""
        edge = 0
        for slot in self.slots:
            if not bool((self.base[edge : slot.offset] == POISON).all()):
                return False
            edge = slot.offset + slot.nbytes
        return bool((self.base[edge:] == POISON).all())

    def checksum(self) -> int:
        """A position-sensitive sum over every byte, to see whether a borrower changed lent inputs."""
        import torch

        words = self.base.view(torch.int64)
        total, step = 0, 1 << 24
        weights = torch.arange(1, 2 * min(step, words.numel()) + 1, 2, dtype=torch.int64, device=words.device)
        for start in range(0, words.numel(), step):
            chunk = words[start : start + step]
            total = (total * 31 + int((chunk * weights[: chunk.numel()]).sum())) % (1 << 63)
        return total

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


def _cuda_malloc(nbytes: int, device: str) -> int:
    import torch

    pointer = ctypes.c_void_p()
    with torch.cuda.device(device):
        code = cudart().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        if code == 2:
            torch.cuda.empty_cache()
            code = cudart().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
    if code == 2 or pointer.value is None:
        raise EvaluatorError(
            f"the GPU has no room for a buffer of {nbytes / 2**30:.2f} GiB.", "Free the GPU, or use a smaller workload."
        )
    cuda_check(code, "cudaMalloc")
    return pointer.value
