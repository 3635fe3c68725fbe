"""What is lent to a candidate, and when it is whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.tasks import SCALE_ADD, cpp, scale_add

from cudaforge.engine import sandbox
from cudaforge.engine import session as sessions
from cudaforge.engine.bench import Bench, StoppedBench
from cudaforge.engine.builder import compile_kernel
from cudaforge.engine.hosts import PIECE, SETS, CandidateHost, ReferenceHost, TaskBroken, Twin
from cudaforge.engine.sandbox import Child
from cudaforge.engine.session import Session
from cudaforge.engine.supervisor import Supervisor
from cudaforge.task import Task
from cudaforge_profiling.devices import cpu_device


@pytest.fixture
def pair(supervisor: Supervisor) -> Iterator[tuple[ReferenceHost, CandidateHost]]:
    """A reference on the CPU and a candidate that is right, both fresh."""
    task = scale_add()
    built = compile_kernel(cpp(), supervisor.device, supervisor.cache, 120)
    supervisor._forget(task, task.meta.workloads[0])
    reference = supervisor._reference(task, task.meta.workloads[0])
    reference.make_trials([1, 2], ["natural"] * SETS, perturb=True)
    candidate = CandidateHost(cpp(), built, reference, 60)
    candidate.give_parameters()
    yield reference, candidate
    candidate.close()
    supervisor._forget(task, task.meta.workloads[0])


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


def session_of(pair: tuple[ReferenceHost, CandidateHost]) -> Session:
    reference, candidate = pair
    return Session(reference, {"eager": (reference.timed, "eager")}, candidate, 60)


def test_eager_is_timed_in_a_process_of_its_own_with_the_parameters_of_the_trials(
    pair: tuple[ReferenceHost, CandidateHost],
) -> None:
    reference, _ = pair
    session = session_of(pair)
    assert reference.timed in reference.twins and session.eager.host.child.pid != reference.child.pid
    weight = reference.buffers["parameters"].tensor(0)
    for perturb in (True, False):
        reference.make_trials([3, 4], ["natural"] * SETS, perturb=perturb)
        right = weight.clone()
        assert bool((right == 1).all()) is not perturb
        weight.fill_(1e-40)  # candidates can write there, and such numbers are slow
        reference.fill(session.eager.sets)
        session.eager.batch(list(range(session.eager.calls)), {0})
        x, y = (reference.source.tensor(i) for i in range(2))
        assert torch.equal(session.eager.read[0][0], x * right + y)


def test_a_twin_has_what_the_references_constructor_drew_by_whatever_means(supervisor: Supervisor) -> None:
    source = SCALE_ADD.replace("torch.ones(n)", "torch.tensor([float(os.urandom(1)[0]) for _ in range(n)])")
    task = Task.parse("import os\n" + source, name="drawn")
    reference = supervisor._reference(task, task.meta.workloads[0])
    reference.make_trials([1, 2], ["natural"] * SETS, perturb=True)
    twin = Twin(reference)
    for host in (reference.timed, twin):
        session = Session(reference, {"eager": (host, "eager")})
        reference.fill(session.eager.sets)
        session.eager.batch([0, 1, 2], {2})
        x, y = (reference.source.tensor(4 + i) for i in range(2))
        assert torch.equal(session.eager.read[2][0], x * reference.buffers["parameters"].tensor(0) + y)
    twin.close()
    assert reference.twins == [reference.timed]
    reference.timed.child.kill()
    assert not reference.alive and supervisor._reference(task, task.meta.workloads[0]) is not reference


@pytest.mark.parametrize(
    ("before", "given", "weight"),
    [
        (
            "",
            "[columns, float(os.urandom(1)[0]), torch.tensor(os.getpid())]",
            "nn.Parameter(torch.ones(n)); self.k = a + b",
        ),
        (
            "class Both(NamedTuple):\n    scale: float\n    at: torch.Tensor\n",
            "[columns, Both(3.0, torch.tensor(os.getpid())), nn.Parameter(torch.rand(columns) + os.getpid())]",
            "b; self.k = a.scale + a.at",
        ),
    ],
    ids=["drawn", "of types of their own"],
)
def test_a_twin_is_given_the_arguments_that_the_references_model_was(
    supervisor: Supervisor, before: str, given: str, weight: str
) -> None:
    source = SCALE_ADD.replace("return [columns]", f"return {given}").replace("(self, n)", "(self, n, a, b)")
    source = source.replace("nn.Parameter(torch.ones(n))", weight).replace("+ y", "+ y * self.k")
    source = source.replace("rows, columns", before + "rows, columns", 1)
    task = Task.parse("import os\nfrom typing import NamedTuple\n" + source, name="given")
    reference = supervisor._reference(task, task.meta.workloads[0])
    reference.make_trials([1, 2], ["natural"] * SETS, perturb=True)
    session = Session(reference, {"eager": (reference.timed, "eager")})
    reference.fill(session.eager.sets)
    session.eager.batch([0, 1, 2], {1})
    reference.expect(1)
    assert torch.equal(session.eager.read[1][0], reference.buffers["expected0"].tensor(0))


def test_where_eager_is_not_the_reference_no_kernel_is_to_blame(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(pair)
    answers = [False, True]  # the kernel's output is not eager's, eager's is the reference's
    monkeypatch.setattr(sessions.check, "alike", lambda *_: answers.pop(0))
    with pytest.raises(sessions.CandidateFailed, match="not that of its inputs"):
        session.group(["kernel", "eager"])
    answers = [False, False]
    with pytest.raises(TaskBroken, match="what the reference makes"):
        session.group(["kernel", "eager"])


def test_eager_and_its_control_make_equally_many_calls(pair: tuple[ReferenceHost, CandidateHost]) -> None:
    reference, candidate = pair
    twin = Twin(reference)
    session = Session(reference, {"eager": (reference.timed, "eager"), "control": (twin, "eager")}, candidate, 60)
    eager, control, kernel = (session.benches[name] for name in ("eager", "control", "kernel"))
    eager.calls, control.calls, kernel.calls = 9, 5, 3
    session._arrange_alike()
    assert (eager.calls, control.calls, kernel.calls) == (9, 9, 3)
    twin.close()


def test_nothing_of_a_candidate_runs_while_the_clock_is_set_up(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads would make the constant too large, and the trials of baselines too slow, so their batches short."""
    candidate = pair[1]
    candidate.give_inputs(range(SETS))
    candidate.run()
    seen: list[bool] = []

    def note(real: Callable[..., float]) -> Callable[..., float]:
        def noted(bench: Bench, *arguments: object) -> float:
            if bench.candidate is None:
                seen.append(candidate.child._stopped)
            return real(bench, *arguments)

        return noted

    for name in ("timed", "_trial", "_measure"):
        monkeypatch.setattr(StoppedBench, name, note(getattr(StoppedBench, name)))
    session = session_of(pair)
    session.kernel.calls, session.kernel.samples_us = 1, [200.0]
    session.kernel.grow()
    session.kernel.samples_us.clear()
    session.group(["eager", "kernel"])
    assert len(seen) > 9 and all(seen)


def test_a_baselines_batch_that_is_too_short_makes_longer_ones(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(pair)
    eager, real = session.eager, session.eager._measure
    eager.calls = 2
    monkeypatch.setattr(eager, "_measure", lambda order, picks: (real(order, picks), 2e-4)[1])
    assert session.group(["kernel", "eager"]) is False and eager.calls == 75


def test_what_the_supervisor_reads_of_a_stopped_process_is_not_the_kernels_time(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(pair)
    assert pair[1].child.watched
    monkeypatch.setattr(sandbox.frozen, "cpu_seconds", lambda pid: time.sleep(0.5) or 0.0)
    assert session.kernel.timed([0]) < 0.5


def test_a_batch_with_a_sign_of_foul_play_is_no_sample_and_most_are_a_verdict(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(pair)
    session.kernel.calls = session.kernel.most_calls  # none is too short
    session._arrange_alike()
    real, foul = session.kernel._measure, iter([True, False] * 100)

    def measure(order: list[int], picks: set[int]) -> float:
        seen = next(foul)
        session.kernel.suspect("a sign", seen, "as every second time")
        return real(order, picks) / (1000 if seen else 1)

    monkeypatch.setattr(session.kernel, "_measure", measure)
    assert [session.group(["kernel", "eager"]) for _ in range(6)] == [False, True] * 3
    kernel, eager = session.kernel.samples_us, session.eager.samples_us
    assert len(kernel) == len(eager) == 3 and max(kernel) < 100 * min(kernel), "the others have not counted"
    session.kernel.judge()
    session.kernel.fouls = 4
    with pytest.raises(sessions.CandidateFailed, match="a sign: seen in 3 of 6 timed batches") as failed:
        session.kernel.judge()
    assert failed.value.kind == "rule"


def test_a_batch_that_is_too_short_for_its_calls_makes_longer_ones(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after trials that were slow on purpose."""
    session = session_of(pair)
    kernel = session.kernel
    kernel.calls, real = 1, kernel._measure
    monkeypatch.setattr(kernel, "_measure", lambda order, picks: (real(order, picks), 2e-4)[1])
    assert [session.group(["kernel", "eager"]) for _ in range(3)] == [False, True, True]
    assert kernel.calls == 75, "a batch of 15 ms"
    assert len(kernel.samples_us) == len(session.eager.samples_us) == 2


def test_which_outputs_are_compared_strictly_is_secret_and_the_first_all_are(
    pair: tuple[ReferenceHost, CandidateHost],
) -> None:
    session = session_of(pair)
    strictly = []
    for groups in range(1, 400):
        session.groups = groups
        strictly.append(session._strictly())
    assert all(strictly[: sessions.STRICT_FIRST]) and 0.1 < sum(strictly[10:]) / 389 < 0.4
    session.strict_s, session.groups = [1.0], 1  # they take long
    assert {session._strictly() for _ in range(64)} == {True, False}


@pytest.mark.parametrize("timed", ["screen", "interleave"])
def test_a_kernel_is_watched_once_and_somewhere_among_its_timed_batches(
    pair: tuple[ReferenceHost, CandidateHost], timed: str
) -> None:
    session = session_of(pair)
    looked: list[int] = []
    arguments = (0.02,) if timed == "screen" else (12, 60.0)
    getattr(session, timed)(*arguments, lambda: looked.append(len(session.kernel.samples_us)))
    assert len(looked) == 1 and looked[0] in sessions.LOOK_AFTER and looked[0] < len(session.kernel.samples_us)


def test_an_input_that_a_timed_call_has_changed_is_a_broken_rule(
    pair: tuple[ReferenceHost, CandidateHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, candidate = pair
    session = session_of(pair)
    assert session.group(["kernel", "eager"]) in (True, False)
    real = candidate.kept

    def kept(sets: set[int]) -> bool:
        candidate.buffers["slots"].raw(min(sets) * len(reference.input_specs))[5] ^= 1
        return real(sets)

    monkeypatch.setattr(candidate, "kept", kept)
    with pytest.raises(sessions.CandidateFailed, match="changed its inputs in place"):
        session.group(["kernel", "eager"])


def test_the_constructors_tensors_are_whole_for_every_candidate(pair: tuple[ReferenceHost, CandidateHost]) -> None:
    reference, _ = pair
    before = reference.buffers["init"].base.clone()
    reference.buffers["init"].base.fill_(7)
    reference.restore_init()
    assert torch.equal(reference.buffers["init"].base, before)


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
    session = Session(reference, {"eager": (reference.timed, "eager")}, candidate, 60)
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
