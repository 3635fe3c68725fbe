"""Where timed outputs lie, and how they are read."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cudaforge.engine import bench
from cudaforge.engine.bench import GateBench, StoppedBench
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, Host

LAST_STEP = ([512, 512], [1 << 20, 1])
"""Shape and strides of the last step of 512 sequences: a GiB of which half a MiB counts."""


def bench_of(kind: Any, host: Any, spec: tuple[str, tuple[int, ...]], **attributes: Any) -> Any:
    made = kind.__new__(kind)
    for name, value in {"gpu": kind is GateBench, "child": SimpleNamespace(pid=os.getpid()), **attributes}.items():
        setattr(host, name, value)
    made.host, made.what, made.memory = host, "it", {}
    made.reference = SimpleNamespace(output_specs=[spec])
    return made


def candidate() -> Any:
    return CandidateHost.__new__(CandidateHost)


def baseline() -> Any:
    return Host.__new__(Host)


def said(shape: list[int], strides: list[int], address: int = 0) -> dict[str, Any]:
    return {"tensors": [["float32", shape, strides, "cpu", address]]}


@pytest.mark.parametrize("host", [candidate, baseline])
@pytest.mark.parametrize("kind", [StoppedBench, GateBench])
def test_an_output_may_lie_far_apart(host: Any, kind: Any) -> None:
    """As the reference's own may: a step of a sequence, results with cache lines of their own."""
    for shape, strides in (LAST_STEP, ([2048], [32]), ([4, 0], [1 << 30, 1])):
        of = bench_of(kind, host(), ("float32", tuple(shape)))
        assert of._layout_of(said(shape, strides, 64)) == [(torch.float32, shape, strides, 64)]


def test_a_candidate_does_not_make_the_supervisor_read_for_minutes() -> None:
    shape, strides = [1 << 20], [1 << 12]
    spec = ("float32", tuple(shape))
    with pytest.raises(CandidateFailed, match="lies closer together"):
        bench_of(StoppedBench, candidate(), spec)._layout_of(said(shape, strides))
    assert bench_of(StoppedBench, baseline(), spec)._layout_of(said(shape, strides)), "eager's is what it is"
    garbled: tuple[Any, ...] = ([1 << 60], [-1], ["x"], [1, 1])
    for odd in garbled:
        with pytest.raises(CandidateFailed, match="garbled"):
            bench_of(StoppedBench, candidate(), spec)._layout_of(said(shape, odd))


@pytest.mark.parametrize("most", [1 << 28, 0])
def test_outputs_are_read_where_they_lie(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what lies between their elements, and row by row."""
    monkeypatch.setattr(bench, "MOST_EXTENT", most)
    monkeypatch.setattr(bench, "MOST_SPREAD", 1)
    memory = torch.arange(4 * 6 * 8 * 2.0)
    for there in (
        memory.view(4, 6, 16)[:, -1],
        memory.view(4, 6, 16)[:, :, 3],
        memory.view(4, 6, 16)[1:, ::2, :8].permute(1, 2, 0),
        memory.view(24, 1, 16)[::3, :, 1:2],
        memory.view(4, 96)[:, :5].unsqueeze(2),
        memory.view(16, 24).t(),
        memory[7],
        memory.view(4, 96)[:, :0],
    ):
        shape, strides = list(there.shape), list(there.stride())
        of = bench_of(StoppedBench, candidate(), ("float32", tuple(shape)))
        of.shapes = [(torch.float32, shape, strides)]
        monkeypatch.setattr(of, "addresses", lambda position, place=there: [place.data_ptr()])
        (read,) = of._read(0)
        assert torch.equal(read, there) and (not read.numel() or read.data_ptr() != there.data_ptr())


def test_what_is_wide_is_held_without_what_lies_between() -> None:
    memory = torch.arange(1 << 16)
    of = bench_of(StoppedBench, candidate(), ("int64", (16,)))
    of.shapes, of.addresses = [(torch.int64, [16], [1 << 12])], lambda position: [memory.data_ptr()]
    (read,) = of._read(0)
    assert torch.equal(read, memory[:: 1 << 12]) and read.untyped_storage().nbytes() == 8 * 16


def test_an_empty_output_lies_nowhere_and_any_other_in_the_arena() -> None:
    arena = torch.arange(64.0)
    lent = {"buffers": {"arena": SimpleNamespace(base=arena.view(torch.uint8))}, "arena_base": 1 << 20}
    of = bench_of(GateBench, candidate(), ("float32", (3,)), **lent)
    empty = of._view(torch.float32, [5, 0], [1, 1], 0)
    assert (list(empty.shape), empty.dtype) == ([5, 0], torch.float32)
    assert torch.equal(of._view(torch.float32, [3], [20], (1 << 20) + 16), arena[4::20])
    for at in (0, (1 << 20) - 4, (1 << 20) + 24 * 4):
        with pytest.raises(CandidateFailed, match="outside"):
            of._view(torch.float32, [3], [20], at)


def test_pieces_are_taken_of_elements_and_not_of_what_lies_between_them() -> None:
    rng = random.Random(1)
    room = torch.full((64 * 4096,), -1.0)
    apart = room.as_strided((64, 20), (4096, 1))
    apart.fill_(7.0)
    for _ in range(200):
        piece = bench._piece_of(apart, rng).view(torch.float32)
        assert piece.numel() == 16 and float(piece[0]) == 7.0
    for few in (torch.ones(3), torch.ones(0), torch.ones(5, 7)):
        assert bench._piece_of(few, rng).numel() == min(few.numel() * 4, bench.PIECE)
