"""The gate: a clock for GPU work that the process which does the work cannot touch.

One page of shared memory, registered with CUDA on both sides. The candidate's stream waits on a word of it
(`cuStreamWaitValue32`), runs what was queued behind it, and writes another word (`cuStreamWriteValue32`). The
supervisor opens the gate by a plain store and watches the second word: no launch gap is timed, no GPU work of the
supervisor is in the way, and no useful work is possible before the gate, since the inputs are written just before.

Runs on both sides of the wall, so it imports the standard library, torch and protocol.py alone.
"""

from __future__ import annotations

import ctypes
import mmap
import time

from cudaforge.engine.protocol import cuda_check, cudart, sealed_memory

PAGE = 4096
OPEN, DONE = 0, 64
"""Byte offsets of the two words, each in a cache line of its own."""
_WAIT_GEQ = 0
_MAPPED = 2


class GatePage:
    """The shared page as one process sees it: registered with CUDA, usable by that process's streams."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE)
        self.words = memoryview(self._map).cast("I")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        flags = ctypes.c_uint(_MAPPED)
        cuda_check(
            cudart().cudaHostRegister(ctypes.c_void_p(self.address), ctypes.c_size_t(PAGE), flags), "cudaHostRegister"
        )
        pointer = ctypes.c_void_p()
        code = cudart().cudaHostGetDevicePointer(ctypes.byref(pointer), ctypes.c_void_p(self.address), ctypes.c_uint(0))
        cuda_check(code, "cudaHostGetDevicePointer")
        assert pointer.value is not None
        self.device_address = pointer.value
        self._driver = ctypes.CDLL("libcuda.so.1")

    def close(self) -> None:
        """Takes the page's registration back: its address may be mapped again."""
        cuda_check(cudart().cudaHostUnregister(ctypes.c_void_p(self.address)), "cudaHostUnregister")

    def wait(self, stream: int, offset: int, ticket: int) -> None:
        """Makes `stream` (a cudaStream_t) wait until the word at `offset` has reached `ticket`."""
        self._value(self._driver.cuStreamWaitValue32_v2, "cuStreamWaitValue32", stream, offset, ticket, _WAIT_GEQ)

    def write(self, stream: int, offset: int, ticket: int) -> None:
        """Makes `stream` write `ticket` to the word at `offset`, after all that was queued before, with a barrier."""
        self._value(self._driver.cuStreamWriteValue32_v2, "cuStreamWriteValue32", stream, offset, ticket, 0)

    def _value(self, call: ctypes._FuncPointer, name: str, stream: int, offset: int, ticket: int, flags: int) -> None:
        address = ctypes.c_ulonglong(self.device_address + offset)
        code = call(ctypes.c_void_p(stream), address, ctypes.c_uint(ticket), ctypes.c_uint(flags))
        if code:
            raise RuntimeError(f"{name} failed with CUDA driver error {code}")


def new_page() -> int:
    """A file descriptor of a fresh page, to be lent."""
    return sealed_memory("cudaforge-gate", PAGE)


def pass_through(words: memoryview, ticket: int, timeout_s: float) -> float | None:
    """Opens the gate and watches for done. Returns seconds between the two, None after `timeout_s`."""
    words[OPEN // 4] = ticket
    return watch(words, ticket, timeout_s)


def watch(words: memoryview, ticket: int, timeout_s: float) -> float | None:
    """Seconds until the done flag has reached `ticket`; None after `timeout_s`."""
    clock, done = time.perf_counter, DONE // 4
    started = clock()
    while words[done] != ticket:
        if clock() - started > timeout_s:
            return None
    return clock() - started
