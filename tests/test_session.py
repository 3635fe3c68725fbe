"""Sessions: every step, what is kept of it, undo and branch, waiting, kill -9, and the automatic loop that goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.recording import record
from support.scripted import (
    TASK_SOURCE,
    UNREADABLE,
    ScriptedEvaluator,
    diagnosis_reply,
    kernel_reply,
    plan_reply,
)
from support.spool_server import serving

import cudaforge as cf
from cudaforge import wiring
from cudaforge.errors import ConflictError, KernelError, ReplyError, Suspended, UsageError
from cudaforge.evaluation import Evaluation, Verdict
from cudaforge.trace import Action, Attempt, CallState, Diagnosis, Plan, RunState

TESTS = Path(__file__).parent
TASK = cf.Task.parse(TASK_SOURCE, name="add-one")


def text(what: str) -> str:
    """A kernel that does `what`, as a person writes it."""
    return f"class ModelNew:\n    pass  # {what}\n"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In memory where that can be: a session writes often, and waits for the disk each time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        monkeypatch.setenv("CUDAFORGE_HOME", made)
        yield Path(made)


@pytest.fixture
def evaluator() -> ScriptedEvaluator:
    return ScriptedEvaluator()


@pytest.fixture
def spool(tmp_path: Path, evaluator: ScriptedEvaluator) -> Iterator[Path]:
    with serving(tmp_path / "spool", evaluator):
        yield tmp_path / "spool"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A Coder and a Judge that know what the tests below ask."""
    coder = [kernel_reply(what) for what in ("BUILD_FAILED", "time_us=80", "time_us=40", "time_us=50")]
    return record(tmp_path / "recording", coder, [diagnosis_reply(), plan_reply(), plan_reply()])


def begin(spool: Path, **more: Any) -> cf.Session:
    return cf.Session(TASK, language="module", evaluator=f"spool:{spool}", **more)


def calls(session: cf.Session) -> list[tuple[str, str]]:
    """Purpose and round of each question."""
    with session.result._store() as store:
        return [(call.purpose, call.attempt_id.split(".")[1]) for call in store.calls(session.id)]


def last_prompt(session: cf.Session) -> str:
    with session.result._store() as store:
        return store.calls(session.id)[-1].messages[-1].content


def rounds(session: cf.Session) -> list[tuple[Action, int | None, Verdict | None]]:
    """Action, base and verdict of each attempt."""
    return [(a.action, int(a.base.split(".")[1]) if a.base else None, a.verdict) for a in session.history]


def number(attempt: Attempt | None) -> int | None:
    return attempt.round if attempt else None


# -- the steps ----------------------------------------------------------------------------------------------------


def test_every_step_is_stored_as_the_automatic_loop_would_store_it(
    spool: Path, model: str, evaluator: ScriptedEvaluator
) -> None:
    with begin(spool, coder=model) as session:
        assert (session.head, session.history, session.run.state) == (None, (), RunState.STOPPED)
        drafted = session.draft()
        assert (drafted.action, drafted.round, drafted.finished, session.head) == (Action.DRAFT, 0, None, None)
        assert session.evaluate().verdict is Verdict.BUILD_FAILED
        assert number(session.head) == 0

        diagnosis = session.judge()
        assert isinstance(diagnosis, Diagnosis)
        assert session.judge() == diagnosis  # stored, not asked again
        repaired = session.revise()
        assert (repaired.action, repaired.base, repaired.advice) == (Action.REPAIR, drafted.id, diagnosis)
        assert session.evaluate().time_us == 80.0

        assert session.profile() == session.profile()
        plan = session.judge()
        assert isinstance(plan, Plan)
        revised = session.revise(hint="keep the row in registers")
        assert revised.hint == "keep the row in registers"
        assert "keep the row in registers" in last_prompt(session) and "fuse the loops" in last_prompt(session)
        session.evaluate()

        edited = session.edit(text("time_us=60"))
        assert (edited.action, edited.base) == (Action.EDIT, revised.id)
        assert session.evaluate().time_us == 60.0
        assert number(session.head) == 3
        assert session.head is not None and session.head.measured_gain == pytest.approx(40 / 60)

        assert "between two steps" in session.result.message
        back = session.undo()
        assert number(back) == number(session.head) == 2
        assert len(session.history) == 4

        branched = session.branch()
        assert branched.run.branched_from == revised.id
        assert rounds(branched) == rounds(session)[:3]
        result = session.finish()

    assert result.state is RunState.DONE and result.kernel is not None and result.kernel.verified
    assert result.speedup is not None and result.speedup.eager.value == 2.5
    assert result.run.outcome is not None and result.run.outcome.reason == "finished by hand"
    purposes = [("draft", "0"), ("diagnose", "1"), ("repair", "1"), ("advise", "2"), ("revise", "2")]
    assert calls(session) == purposes
    assert [key.split("/")[1] for key in evaluator.keys].count("profile") == 1
    told = {event.event.type for event in result.events()}
    assert {"run_started", "baseline_measured", "stage_finished", "attempt_finished", "run_finished"} <= told
    assert sum(event.event.type == "run_started" for event in result.events()) == 1
    with pytest.raises(ConflictError, match="is done"):
        session.undo()
    frame = result.to_dataframe()
    assert list(frame["action"]) == ["draft", "repair", "revise", "edit"]
    assert list(frame["speedup"])[1:] == pytest.approx([100 / 80, 100 / 40, 100 / 60])


def test_steps_work_inside_of_a_running_event_loop(spool: Path) -> None:
    async def cell() -> Evaluation:
        with begin(spool) as session:
            session.edit(text("time_us=70"))
            return session.evaluate()

    assert asyncio.run(cell()).time_us == 70.0


def test_a_step_that_does_not_fit_says_what_does_and_changes_nothing(spool: Path, model: str) -> None:
    with begin(spool, coder=model) as session:
        for step in (session.judge, session.revise, session.evaluate, session.profile, session.undo, session.branch):
            with pytest.raises(ConflictError) as raised:
                step()
            assert raised.value.hint
        assert session.history == ()
        session.draft()
        for step in (session.draft, session.judge, session.revise, session.finish):
            with pytest.raises(ConflictError, match="written and not evaluated"):
                step()
        session.evaluate()
        with pytest.raises(ConflictError, match="did not pass"):
            session.profile()
        session.judge()
        with pytest.raises(ConflictError, match="is open"):
            session.draft()
        assert (len(session.history), session.run.state) == (2, RunState.STOPPED)


def test_a_step_that_a_person_mistook_is_no_failure_of_the_run(spool: Path) -> None:
    with begin(spool) as session:
        before = len(session.result.events())
        for mistake in (
            lambda: session.edit(""),
            lambda: session.optimize(-3),
            lambda: session.edit({"kernel.cu": "x"}),
        ):
            with pytest.raises(UsageError):
                mistake()
            assert (session.run.state, session.run.error) == (RunState.STOPPED, "")
        assert not [e for e in session.result.events()[before:] if e.event.type == "run_finished"]


def test_what_is_left_written_is_evaluated_without_asking_anybody(spool: Path, model: str) -> None:
    with begin(spool, coder=model) as session:
        session.draft()
        session.evaluate()
        written = session.revise("a hint")
        asked = calls(session)
    assert cf.Session.resume(session.id).optimize(1).state is RunState.DONE
    assert calls(session)[: len(asked)] == asked and ("diagnose", "1") not in calls(session)
    assert not [number for _, number in calls(session)[len(asked) :] if number == "1"]
    (found,) = [a for a in session.history if a.id == written.id]
    assert (found.advice, found.predicted_gain, found.verdict) == (None, None, Verdict.PASSED)


def test_handing_over_keeps_the_other_limits(spool: Path, model: str) -> None:
    with begin(spool, coder=model) as session:
        session.draft()
        session.evaluate()
        with session.result._store() as store:
            run = session.run
            limited = run.spec.budget.model_copy(update={"usd": 1.0, "patience": 3})
            store.save_run(run.model_copy(update={"spec": run.spec.model_copy(update={"budget": limited})}))
        session.optimize(1)
        assert (session.run.spec.budget.usd, session.run.spec.budget.patience) == (1.0, 3)


def test_a_recording_goes_on_after_the_last_reply_of_a_branchs_line(spool: Path, model: str) -> None:
    with begin(spool, coder=model) as session:
        session.draft()
        session.undo()
        session.draft()
        assert session.evaluate().time_us == 80.0
        with session.branch() as other:
            other.revise()
            assert other.evaluate().time_us == 40.0  # the third reply, not the second again


def test_an_edit_takes_text_files_or_a_kernel_of_the_sessions_language(spool: Path) -> None:
    with begin(spool) as session:
        for source in (text("time_us=70"), {"model.py": text("time_us=60")}):
            session.edit(source)
            assert session.evaluate().passed
        other = cf.Kernel.of("cpp", {"kernel.cpp": "x", "model.py": "x"})
        with pytest.raises(UsageError, match="session is in module"):
            session.edit(other)
        with pytest.raises(KernelError, match="has the files"):
            session.edit({"kernel.cu": "x"})
        assert len(session.history) == 2
        session.edit(cf.Kernel.of("module", {"model.py": text("time_us=50")}))
        assert session.evaluate().time_us == 50.0


def test_an_edit_of_one_file_keeps_the_others(tmp_path: Path) -> None:
    with cf.Session(TASK, language="cpp", evaluator="local:cpu") as session:
        with pytest.raises(UsageError, match=r"needs kernel.cpp and model.py"):
            session.edit("int main;")
        session.edit({"kernel.cpp": "int one;", "model.py": "class ModelNew: ..."})
        written = session.edit("int two;")
        kernel = session.result.source(written)
        assert kernel is not None and kernel.files == {"kernel.cpp": "int two;", "model.py": "class ModelNew: ..."}
        assert rounds(session) == [(Action.EDIT, None, None), (Action.EDIT, None, None)]
        assert session.history[0].withdrawn and not session.history[1].withdrawn


def test_advice_may_be_carried_out_by_hand(spool: Path) -> None:
    model = record(spool.parent / "judge", [], [plan_reply()])
    with begin(spool, judge=model) as session:
        session.edit(text("time_us=70"))
        session.evaluate()
        plan = session.judge()
        mine = session.edit(text("time_us=60"))
        assert (mine.action, mine.advice, mine.round) == (Action.EDIT, plan, 1)
        assert session.evaluate().passed
        assert rounds(session) == [(Action.EDIT, None, Verdict.PASSED), (Action.EDIT, 0, Verdict.PASSED)]


def test_replies_that_cannot_be_read_are_told(spool: Path) -> None:
    coder = [kernel_reply("time_us=80"), UNREADABLE, UNREADABLE, kernel_reply("time_us=70")]
    model = record(spool.parent / "talker", coder, [UNREADABLE, UNREADABLE, plan_reply()])
    with begin(spool, coder=model) as session:
        session.draft()
        session.evaluate()
        with pytest.raises(ReplyError, match="cannot be read"):
            session.judge()
        session.undo()
        assert isinstance(session.judge(), Plan)  # asked anew
        failed = session.revise()
        assert failed.kernel is None and failed.reply_error and failed.finished is not None
        assert number(session.head) == 0
        again = session.revise()
        assert (again.kernel is not None, again.round) == (True, 3)
        assert "round 1" not in last_prompt(session)  # what was taken back is not told


# -- undo and branch ----------------------------------------------------------------------------------------------


def test_undo_closes_what_is_open_then_walks_down_the_line(spool: Path) -> None:
    with begin(spool) as session:
        for what in ("time_us=80", "time_us=70"):
            session.edit(text(what))
            session.evaluate()
        session.edit(text("time_us=60"))
        assert number(session.undo()) == 1
        assert session.history[2].withdrawn
        assert number(session.undo()) == 0
        session.edit(text("time_us=90"))
        session.evaluate()
        assert rounds(session)[3] == (Action.EDIT, 0, Verdict.PASSED)
        assert number(session.undo()) == 0
        assert session.undo() is None
        assert session.head is None
        session.edit(text("time_us=20"))
        assert rounds(session)[4] == (Action.EDIT, None, None)


def test_a_branch_repeats_nothing_and_is_independent(spool: Path, model: str, evaluator: ScriptedEvaluator) -> None:
    with begin(spool, coder=model) as session:
        session.draft()
        session.evaluate()
        session.edit(text("time_us=99"))
        session.evaluate()
        session.undo()
        session.revise()
        session.evaluate()
        session.profile()
        done = list(evaluator.keys)
        with session.branch() as other:
            assert evaluator.keys == done
            assert [a.id for a in other.history] == [f"{other.id}.0", f"{other.id}.1"]
            assert rounds(other) == [(Action.DRAFT, None, Verdict.BUILD_FAILED), (Action.REPAIR, 0, Verdict.PASSED)]
            assert other.result.evaluation(1) == session.result.evaluation(2)
            assert other.profile() == session.profile()
            assert other.result.baseline == session.result.baseline
            assert other.result.run.device == session.result.run.device
            other.revise()  # the recording goes on where the line stood
            assert other.evaluate().time_us == 40.0
            assert evaluator.keys[len(done) :] == [f"{other.id}.2/evaluate/0"]
            assert other.result.to_dataframe()["usd"].tolist() == [0.0, 0.0, 0.0]
            assert number(session.head) == 2 and len(session.history) == 3
            result = other.finish()
        assert result.branched_from == f"{session.id}.2"
        with other.branch() as third:  # one that is done can be branched
            assert number(third.head) == 2 and third.run.state is RunState.STOPPED


# -- another process, and the automatic loop ----------------------------------------------------------------------


def test_a_session_goes_on_in_a_new_process_after_kill_9_in_the_middle(
    tmp_path: Path, evaluator: ScriptedEvaluator
) -> None:
    home, spool = tmp_path / "home", tmp_path / "spool"
    coder = [kernel_reply(what) for what in ("time_us=80", "time_us=40", "time_us=30")]
    model = record(tmp_path / "recording", coder, [plan_reply()])
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "support/session_process.py"), str(home), str(spool), model],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        with serving(spool, evaluator):
            word, run_id = process.stdout.readline().split()
            assert word == "written"
        process.stdin.write("\n")
        process.stdin.flush()
        result = cf.load_run(run_id, home=home)
        while not any(e.event.type == "stage_started" and e.event.stage == "evaluate" for e in result.events()[-1:]):
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert result.state is RunState.RUNNING  # nobody could store anything else
    asked = len(result.events())

    session = cf.Session.resume(run_id, home=home)
    assert number(session.head) == 0 and len(session.history) == 2
    with serving(spool, evaluator), session:
        assert session.evaluate().time_us == 40.0
        assert number(session.head) == 1
        session.revise()
        assert session.evaluate().time_us == 30.0
        assert session.finish().state is RunState.DONE
    assert len(result.events()) > asked
    assert calls(session) == [("draft", "0"), ("advise", "1"), ("revise", "1"), ("revise", "2")]
    kinds = [f"{key.split('.')[-1].split('/')[0]}/{key.split('/')[1]}" for key in evaluator.keys if "." in key]
    assert kinds == ["0/evaluate", "0/profile", "1/evaluate", "2/evaluate", "2/verify"]


def test_resume_goes_on_automatically_from_the_head(spool: Path, model: str) -> None:
    with begin(spool, coder=model) as session:
        session.edit(text("time_us=20"))
        session.evaluate()
        session.undo()
        session.edit(text("time_us=90"))
        session.evaluate()
        home = wiring.resolve_home()
        with session.result._store() as store:  # as `cudaforge resume` does
            stored = store.run(session.id)
            assert stored is not None
            limit = stored.spec.budget.model_copy(update={"rounds": 3})
            store.save_run(stored.model_copy(update={"spec": stored.spec.model_copy(update={"budget": limit})}))
            run = asyncio.run(
                wiring.resume(session.id, store, home, wiring.make_evaluator(f"spool:{spool}", home, patient=True))
            )
    assert run.state is RunState.DONE and run.head is None
    assert rounds(session)[2][:2] == (Action.REVISE, 1)
    assert run.outcome is not None and run.outcome.best == f"{session.id}.0"  # undone, and still the fastest


def test_a_checkpoint_of_the_automatic_loop_does_not_lead_back(spool: Path, model: str) -> None:
    """A suspended loop, then steps by hand, then the loop again: it begins with what the hand left."""
    with begin(spool) as session:  # manual:
        session.edit(text("time_us=80"))
        session.evaluate()
        assert session.optimize(rounds=3).state is RunState.SUSPENDED
        assert number(session.head) == 0
        waiting = session.history[-1]
        assert (waiting.action, waiting.round) == (Action.REVISE, 1)
        session.undo()
        session.edit(text("time_us=40"))
        session.evaluate()
        assert session.optimize(rounds=1).state is RunState.SUSPENDED
        last = session.history[-1]
        assert (last.action, last.base) == (Action.REVISE, f"{session.id}.2")
        assert "Answer it with `cudaforge reply" in session.result.message


def test_without_a_model_a_step_that_needs_one_says_so(spool: Path) -> None:
    with begin(spool) as session:
        with pytest.raises(Suspended) as raised:
            session.draft()
        assert "edit(source)" in raised.value.hint and "cudaforge reply" in raised.value.hint
        assert session.run.state is RunState.SUSPENDED
        session.edit(text("time_us=70"))
        assert session.evaluate().passed and session.run.state is RunState.STOPPED
        with session.result._store() as store:
            assert not session.run.waiting_for and len(store.attempts(session.id)) == 1


def test_a_reply_that_came_meanwhile_is_found(spool: Path) -> None:
    with begin(spool) as session:
        with pytest.raises(Suspended):
            session.draft()
        with session.result._store() as store:
            (call,) = store.calls(session.id)
            store.save_call(call.model_copy(update={"state": CallState.DONE, "reply": kernel_reply("time_us=70")}))
        assert session.draft().kernel is not None
        assert session.evaluate().time_us == 70.0


def test_a_session_is_of_a_task_or_of_a_run() -> None:
    with pytest.raises(UsageError, match="either a task or a run_id"):
        cf.Session()
    with pytest.raises(UsageError, match="either a task or a run_id"):
        cf.Session(TASK, run_id="r1")
    with pytest.raises(UsageError, match="no run"):
        cf.Session.resume("r1")
