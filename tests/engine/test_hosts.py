"""What is lent to a candidate, and when it is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.tasks import cpp, scale_add

from cudaforge.engine import session as sessions
from cudaforge.engine.builder import compile_kernel
from cudaforge.engine.hosts import PIECE, SETS, CandidateHost, ReferenceHost
from cudaforge.engine.sandbox import Child
from cudaforge.engine.session import Session
from cudaforge.engine.supervisor import Supervisor
from cudaforge_profiling.devices import cpu_device


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[ReferenceHost, CandidateHost]]:
    """A reference on the CPU and a candidate that is right."""
    supervisor = Supervisor(tmp_path, "cpu")
    task = scale_add()
    built = compile_kernel(cpp(), supervisor.device, supervisor.cache, 120)
    reference = supervisor._reference(task, task.meta.workloads[0])
    reference.make_trials([1, 2], ["natural"] * SETS, perturb=True)
    candidate = CandidateHost(cpp(), built, reference, 60)
    candidate.give_parameters()
    yield reference, candidate
    candidate.close()
    supervisor.close()


def test_secret_pieces_of_every_input_are_wrong_until_the_end(pair: tuple[ReferenceHost, CandidateHost]) -> None:
    reference, candidate = pair
    sets, width, slots = 5, len(reference.input_specs), candidate.buffers["slots"]
    reference.fill(sets)
    source = reference.source.base.clone()
    places = []
    for _ in range(2):
        complete = candidate.give_in_part(range(sets))
        assert torch.equal(reference.source.base, source)  # nobody else sees them inverted
        wrong = [(slots.raw(i) != reference.source.raw(i)).nonzero().flatten() for i in range(sets * width)]
        # One piece in 256: of 64 x 100 floats, 6 pieces of 16 bytes, two of which may be the same.
        assert all(PIECE <= at.numel() <= 6 * PIECE for at in wrong)
        places.append(torch.cat(wrong))
        complete()
        assert all(torch.equal(slots.raw(i), reference.source.raw(i)) for i in range(sets * width))
        assert slots.guards_intact(SETS * width)
    assert not torch.equal(*places)  # others each time


def test_a_batch_that_is_measured_again_is_compared_too(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, candidate = pair
    count = iter(range(0, 10**9, 10))
    compared: list[str] = []
    for name in ("_compare", "_compare_strictly"):
        real = getattr(Session, name)
        monkeypatch.setattr(Session, name, lambda s, *a, n=name, r=real: (compared.append(n), r(s, *a)))
    monkeypatch.setattr(Child, "preemptions", lambda _: 0)  # whatever else runs on this machine
    monkeypatch.setattr(Session, "_strictly", lambda _: False)
    session = Session(reference, {"eager": (reference, "eager")}, candidate, 60)
    session.group(["eager", "kernel"])
    assert compared == ["_compare"]
    monkeypatch.setattr(Child, "preemptions", lambda _: next(count))  # every batch has lost a core
    session.group(["eager", "kernel"])
    assert session.kernel.generation != session.eager.generation
    session.group(["kernel", "eager"])
    again = compared[1:-1]  # every pick of the other inputs
    assert again and set(again) == {"_compare_strictly"} and compared[-1] == "_compare"
    wrong = sessions.CandidateFailed
    monkeypatch.setattr(candidate, "compare_with", lambda *_: [type("C", (), {"error": _error()})()])
    with pytest.raises(wrong, match="wrong when timed"):
        session.group(["eager", "kernel"])


def _error() -> object:
    from cudaforge.evaluation import OutputError

    return OutputError(output="0", mismatched=1, total=2)


@pytest.mark.parametrize(
    "code",
    [
        "from cudaforge.engine.guards import GuardedAllocations\nwith GuardedAllocations(): torch.empty(3)",
        "from cudaforge.engine.reference import _flop_counter\nwith _flop_counter(): torch.ones(3) @ torch.ones(3)",
    ],
    ids=["guards", "operations"],
)
def test_neither_guards_nor_counting_import_dynamo(code: str) -> None:
    text = f"import sys, torch\n{code}\nassert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", text], check=True, timeout=120)


def test_a_kernel_builds_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        built = compile_kernel(cpp(), cpu_device(), tmp_path / "cache", 120)
    finally:
        os.umask(before)
    assert built.build.binary_sha256
