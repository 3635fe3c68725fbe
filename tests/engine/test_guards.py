"""Guard bands around what torch allocates while outputs are checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cudaforge.engine.calls import poisoned_allocations
from cudaforge.engine.guards import GUARD, GuardedAllocations


def beyond(tensor: torch.Tensor, elements: int) -> None:
    """Writes `elements` elements behind (or, negative, before) a tensor, as a kernel with a pointer would."""
    start = tensor.numel() if elements > 0 else elements
    storage = torch.tensor([], dtype=tensor.dtype).set_(tensor.untyped_storage())
    at = tensor.storage_offset() + start
    storage[at : at + abs(elements)] = 1.0


@pytest.mark.parametrize("elements", [1, 3, -1, GUARD // 8])
def test_a_write_beyond_an_allocation_is_seen(elements: int) -> None:
    with torch.inference_mode(), GuardedAllocations() as guarded:
        out = torch.empty(100)
        out.fill_(2.0)
    assert guarded.overrun() == ""
    with torch.inference_mode():
        beyond(out, elements)
    assert ("behind its end" if elements > 0 else "before its start") in guarded.overrun()


def test_guarded_tensors_are_what_was_asked_for() -> None:
    like = torch.randn(6, 4).t()
    with torch.inference_mode(), GuardedAllocations() as guarded:
        for made, wanted in (
            (torch.empty_like(like), like),
            (torch.zeros(3, 5, dtype=torch.float16), torch.zeros(3, 5, dtype=torch.float16)),
            (torch.full((2, 2), 7), torch.full((2, 2), 7)),
            (torch.empty_strided((4, 3), (6, 2)), torch.empty_strided((4, 3), (6, 2))),
            (torch.empty(0), torch.empty(0)),
        ):
            assert (made.shape, made.stride(), made.dtype) == (wanted.shape, wanted.stride(), wanted.dtype)
            assert type(made) is torch.Tensor and made.data_ptr() % 64 == 0
            if wanted.numel() and wanted.is_contiguous() and wanted.abs().max() < 10 and made.dtype != torch.float32:
                assert torch.equal(made, wanted)
    assert guarded.overrun() == ""


def test_unwritten_elements_stay_poisoned() -> None:
    with torch.inference_mode(), poisoned_allocations(), GuardedAllocations():
        out = torch.empty(50)
        out[:20] = 1.0
    assert bool(torch.isnan(out[20:]).all()) and bool((out[:20] == 1).all())


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_a_tensor_that_is_made_larger_owns_what_was_behind_it() -> None:
    with torch.inference_mode(), GuardedAllocations() as guarded:
        within = torch.empty(1).resize_(100)  # as large as its storage is already
        beyond_it = torch.empty(1).resize_(3, 5000)
        within.fill_(2.0)
        beyond_it.fill_(3.0)
        for size in (100, 5000):
            result = torch.empty(0).new_empty(1)
            torch.add(torch.ones(size), 1, out=result)
    assert guarded.overrun() == ""


def test_what_keeps_its_size_stays_guarded() -> None:
    with torch.inference_mode(), GuardedAllocations() as guarded:
        out = torch.empty(100).resize_(60)
        torch.add(torch.ones(60), 1, out=out)
        torch.empty(3).resize_(9)
    with torch.inference_mode():
        beyond(out, 41)
    assert "behind its end" in guarded.overrun()


def test_pinned_memory_stays_pinned_and_nothing_is_marked_while_a_graph_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU: what torch.cuda would say of it."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self.numel() == 8)
    with torch.inference_mode(), poisoned_allocations(), GuardedAllocations() as guarded:
        torch.empty(8)
        assert not guarded.kept
        torch.empty(9)
        assert len(guarded.kept) == 1
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        captured = torch.empty(50)
        assert len(guarded.kept) == 1 and torch.are_deterministic_algorithms_enabled()
    assert captured.untyped_storage().nbytes() == 200


def test_operators_do_not_fill_their_results_in_a_graph_that_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fill would be a part of the graph whenever it is launched."""
    poisoned: list[bool] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            poisoned.append(torch.are_deterministic_algorithms_enabled())
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for capturing in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda now=capturing: now)
        with torch.inference_mode(), poisoned_allocations(), Seen(), GuardedAllocations():
            torch.mul(torch.ones(4), 2)
        assert set(poisoned) == {not capturing}
        poisoned.clear()
