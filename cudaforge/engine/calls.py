"""Calls of one function on lent inputs, as the reference and a candidate make them when they are checked and timed.

Both processes run this code, so that kernel and baseline are called in the same way. In a candidate's process nothing
here is trusted: tampering can only spoil the answer, since inputs, outputs and clock belong to the supervisor.

On a GPU, calls are queued behind the gate (gate.py) and what they allocate comes from an arena that the supervisor
lends, so that the supervisor reads the outputs where they were written. On the CPU the addresses of the outputs go
into a lent table, and the supervisor reads them out of the stopped process (frozen.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from cudaforge.engine import gate
from cudaforge.engine.protocol import Slot, cudart, leaves, open_lent, pack, spec_of, unpack, view

GRANULE = 2 << 20
MOST_WARM = 500
"""Calls that warm up, at most: the clock of this process may say anything."""


class Borrowed:
    """Buffers that the supervisor has lent to this process, by name."""

    def __init__(self) -> None:
        self.bases: dict[str, torch.Tensor] = {}
        self.page: gate.GatePage | None = None

    def open(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Handler of `map`: opens `buffers` [{id, ...}]; the one of kind `gate` is the page of the clock."""
        rest = iter(fds)
        for wire in message["buffers"]:
            if wire["kind"] == "gate":
                self.page = gate.GatePage(next(rest))
            else:
                self.bases[wire["id"]] = open_lent(wire, next(rest) if wire["kind"] == "shm" else None)
        return {}

    def tensors(self, buffer: str, slots: list[list[Any]]) -> list[torch.Tensor]:
        """Views at `slots` of a lent buffer."""
        return [view(self.bases[buffer], Slot.of(wire)) for wire in slots]

    def values(self, buffer: str, entry: dict[str, Any]) -> list[Any]:
        """The arguments that `entry` {tree, slots} describes, as views of a lent buffer."""
        return list(unpack(entry["tree"], self.tensors(buffer, entry["slots"])))


class Pool:
    """A torch memory pool over lent device memory: what is allocated inside `use()` lies in the arena.

    A pool asks for segments and keeps them, so this is called a few times only. When the arena is full, further
    segments come from the process's own memory, and outputs there have to be copied.
    """

    def __init__(self, arena: torch.Tensor) -> None:
        self.base, self.size, self.used, self.outside = arena.data_ptr(), arena.numel(), 0, 0
        # Kept alive here: torch holds bare addresses.
        self._functions = (
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)(self._allocate),
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(self._free),
        )
        addresses: Any = [ctypes.cast(function, ctypes.c_void_p).value for function in self._functions]
        self._pool = torch.cuda.MemPool(torch._C._cuda_customAllocator(*addresses))

    def _allocate(self, size: int, device: int, stream: int | None) -> int | None:
        size = (size + GRANULE - 1) // GRANULE * GRANULE
        if self.used + size <= self.size:
            self.used += size
            return self.base + self.used - size
        self.outside += size
        pointer = ctypes.c_void_p()
        cudart().cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def _free(self, pointer: int | None, size: int, stream: int | None) -> None:
        if pointer is not None and not self.base <= pointer < self.base + self.size:
            cudart().cudaFree(ctypes.c_void_p(pointer))

    def use(self) -> contextlib.AbstractContextManager[None]:
        """Allocations of this thread inside the block come from the pool."""
        return torch.cuda.use_mem_pool(self._pool)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor lies in the arena."""
        return self.base <= tensor.data_ptr() < self.base + self.size


class Calls:
    """One function, the inputs that it is called on, and the outputs of the last batch, all held at once."""

    def __init__(self, call: Callable[..., Any], device: str, pool: Pool | None = None) -> None:
        self.call, self.device, self.pool = call, device, pool
        self.inputs: list[list[Any]] = []
        self.held: list[Any] = []
        self.events: tuple[Any, Any] | None = None
        self.host_s = 0.0

    def warm(self, seconds: float) -> None:
        """Calls until `seconds` have passed, at least three times. Collects garbage once, so that batches need not.

        These calls run outside the pool: graphs are captured and workspaces made there.
        """
        gc.collect()
        until, count = time.perf_counter() + seconds, 0
        while count < 3 or (time.perf_counter() < until and count < MOST_WARM):
            self.held = [self.call(*self.inputs[count % len(self.inputs)])]
            count += 1
            self._synchronize()
        self.held = []

    def fill_pool(self, count: int) -> None:
        """One batch as it will be timed, so that the pool has its memory before the gate is closed."""
        self.held = []  # what is still held would have to be allocated beside it
        if self.pool is not None:
            with self.pool.use():
                self.held = [self._in_arena(self.call(*self.inputs[i % len(self.inputs)])) for i in range(count)]
        self._synchronize()
        self.held = []

    def run(self, order: list[int]) -> list[Any]:
        """Calls on the input sets in `order`, garbage collection off; on a GPU inside the pool, not waited for."""
        self.held = []
        call, inputs = self.call, self.inputs
        held: list[Any] = []
        gc.disable()
        try:
            if self.pool is None:
                held += [call(*inputs[index]) for index in order]
            else:
                started = time.perf_counter()
                with self.pool.use():
                    held += [self._in_arena(call(*inputs[index])) for index in order]
                self.host_s = time.perf_counter() - started
        finally:
            gc.enable()
        self.held = held
        return held

    def _in_arena(self, out: Any) -> Any:
        """An output that lies elsewhere is copied: only what the supervisor can read counts."""
        if type(out) is torch.Tensor:
            return out if self.pool is None or out.is_cpu or self.pool.holds(out) else out.clone()
        if type(out) in (tuple, list):
            return type(out)([self._in_arena(item) for item in out])
        if type(out) is dict:
            return {key: self._in_arena(item) for key, item in out.items()}
        return out

    def queue(self, page: gate.GatePage, order: list[int], ticket: int) -> None:
        """Queues the gate, the calls and the done flag on the current stream."""
        stream = torch.cuda.current_stream().cuda_stream
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        page.wait(stream, gate.OPEN, ticket)
        start.record()
        self.run(order)
        end.record()
        page.write(stream, gate.DONE, ticket)
        self.events = (start, end)

    def event_us(self) -> float:
        """Microseconds of the last queued batch by this process's own events: an aid, never the clock that counts."""
        self._synchronize()
        assert self.events is not None
        return float(self.events[0].elapsed_time(self.events[1]) * 1e3)

    def describe(self) -> list[dict[str, Any]]:
        """For every held output: its leaves, and dtype, shape, strides, device and address of each tensor."""
        return [describe(out) for out in self.held]

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def describe(out: Any) -> dict[str, Any]:
    """What forward returned, as JSON: `leaves`, its structure; `tensors` [[dtype, shape, strides, device, address]]."""
    tensors: list[torch.Tensor] = []
    tree = pack(out, tensors)
    return {
        "leaves": leaves(tree),
        "tensors": [[*spec_of(t), list(t.stride()), t.device.type, t.data_ptr()] for t in tensors],
    }


@contextlib.contextmanager
def poisoned_allocations() -> Iterator[None]:
    """torch.empty gives NaN (or the largest integer) in place of old memory, so that unwritten elements show."""
    # Memory is filled under deterministic mode. torch.use_deterministic_algorithms does the same and imports the whole
    # of inductor besides, which takes seconds.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False)


def land(out: Any, base: torch.Tensor, slots: list[Slot], device: str) -> dict[str, Any]:
    """Copies outputs into a landing buffer where dtype and shape are as the slots say; describes what came."""
    tensors: list[torch.Tensor] = []
    pack(out, tensors)
    kind = device.partition(":")[0]
    for tensor, slot in zip(tensors, slots, strict=False):
        if spec_of(tensor) == (slot.dtype, slot.shape) and tensor.device.type == kind:
            view(base, slot).copy_(tensor)
    return describe(out)
