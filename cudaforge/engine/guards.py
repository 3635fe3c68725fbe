"""Guard bands around what a kernel allocates through torch, so that a write beyond the end of an output shows.

torch's allocators put small tensors side by side, so a write a few elements too far lands in a neighbour or in slack
and spoils nothing that is compared. While outputs are checked, every tensor that torch allocates is a view into the
middle of a larger one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

GUARD = 4096
"""Bytes before and behind each allocation; a multiple of every alignment that a kernel may ask for."""
MARK = 0xA5
MAX_KEPT = 256
"""Allocations that are looked at: the last ones. All are kept alive until then."""


class GuardedAllocations(TorchDispatchMode):
    """Inside `with`, fresh tensors have guard bands; `overrun()` says afterwards what was written beyond one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: list[tuple[torch.Tensor, int]] = []
        """What was allocated, and bytes of the tensor in its middle that was handed out. That one is not kept: torch
        would hand out another with the same memory, whose size nobody here sees."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch's own hook. Else the first operation imports torch._dynamo and sympy: 1 to 4 s of every evaluation;
        nothing is compiled inside of this mode."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            return _unmarked(func, args, kwargs)
        given = args[:1] if func.overloadpacket in _RESIZING else (kwargs or {}).values()
        sizes = [(t, t.numel()) for t in given if isinstance(t, torch.Tensor)]
        out = func(*args, **(kwargs or {}))
        # What lies behind a tensor that was made larger, by resize_ or as an operator's out=, is its own now.
        if grown := {_memory(t) for t, size in sizes if t.numel() > size}:
            self.kept = [kept for kept in self.kept if _memory(kept[0]) not in grown]
        return tree_map_only(torch.Tensor, self._guarded, out) if func.overloadpacket in _FRESH else out

    def _guarded(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.is_quantized:
            return tensor
        if tensor.is_cpu and torch.cuda.is_initialized() and tensor.is_pinned():
            return tensor  # a kernel may read it where it lies
        used = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        nbytes = used * tensor.element_size()
        with torch._C._DisableTorchDispatch():
            raw = torch.empty(nbytes + 2 * GUARD, dtype=torch.uint8, device=tensor.device)
            raw[:GUARD].fill_(MARK)
            raw[GUARD + nbytes :].fill_(MARK)
            inside = raw[GUARD : GUARD + nbytes].view(tensor.dtype)
            if tensor.numel() == used:  # dense: keep the poison that torch.empty put there
                inside.copy_(tensor.as_strided((used,), (1,)))
            else:
                raw[GUARD : GUARD + nbytes].fill_(0xFF)
            view = inside.as_strided(tensor.shape, tensor.stride())
        if len(self.kept) >= MAX_KEPT:
            self.kept.pop(0)
        self.kept.append((raw, nbytes))
        return view

    def overrun(self) -> str:
        """Where something was written beyond an allocation, in words; empty where nothing was."""
        for raw, nbytes in self.kept:
            before, behind = raw[:GUARD] != MARK, raw[GUARD + nbytes :] != MARK
            if bool(before.any()) or bool(behind.any()):
                first = int(behind.nonzero()[0]) if bool(behind.any()) else int(before.nonzero()[-1]) - GUARD
                where = f"{first} bytes behind its end" if bool(behind.any()) else f"{-first} bytes before its start"
                return f"written beyond an allocation of {nbytes} bytes: {where}"
        return ""


def _memory(tensor: torch.Tensor) -> int:
    """Which storage it is a view of: the same when that has grown and moved."""
    return int(tensor.untyped_storage()._cdata)


def _unmarked(func: Any, args: Any, kwargs: Any) -> Any:
    """What a graph that is being captured will do: marks, and what fills the memory of most operators' results, would
    be written in every later call of it, too."""
    filled = torch.are_deterministic_algorithms_enabled()
    torch._C._set_deterministic_algorithms(False)
    try:
        return func(*args, **(kwargs or {}))
    finally:
        torch._C._set_deterministic_algorithms(filled, warn_only=True)


_aten = torch.ops.aten
_FRESH = {
    *(_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided),
    *(_aten.zeros, _aten.zeros_like, _aten.new_zeros, _aten.ones, _aten.ones_like, _aten.full, _aten.full_like),
}
_RESIZING = {_aten.resize_, _aten.resize_as_}
