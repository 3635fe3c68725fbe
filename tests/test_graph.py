"""The state machine, from a stored run to its outcome: rounds, budgets, waiting, failures, cancellation."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.scripted import (
    UNREADABLE,
    ScriptedEvaluator,
    ScriptedModel,
    diagnosis_reply,
    kernel_reply,
    plan_reply,
    scripted_context,
    scripted_run,
    scripted_spec,
)

from cudaforge import graph
from cudaforge.errors import EvaluatorError, ModelError, StoreError, Suspended
from cudaforge.evaluation import Verdict
from cudaforge.graph import Context, drive
from cudaforge.kernel import Kernel
from cudaforge.llm.manual import ManualModel
from cudaforge.ports import ChatReply, ChatRequest
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import PRESETS, Action, CallState, Diagnosis, Note, Plan, Run, RunSpec, RunState, Usage

RUN = "r000000000a"


@pytest.fixture
def home() -> Iterator[Path]:
    """In memory where that can be: a run writes often, and waits for the disk each time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def store(home: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(home)
    yield opened
    opened.close()


def go(context: Context, home: Path, run_id: str = RUN) -> Run:
    return asyncio.run(drive(run_id, context, home / "checkpoints.db"))


def kernels(*what: str) -> list[str]:
    return [kernel_reply(text) for text in what]


def kernel_id(what: str) -> str:
    return Kernel.of("module", {"model.py": f"class ModelNew:\n    pass  # {what}\n"}).id


def start(store: SqliteStore, home: Path, coder: Sequence[str], judge: Sequence[str] = (), **spec: Any) -> Run:
    scripted_run(store, scripted_spec(**spec))
    return go(scripted_context(store, coder, judge), home)


def notes(store: SqliteStore) -> list[str]:
    return [e.event.message for e in store.events(RUN) if isinstance(e.event, Note)]


def events(store: SqliteStore) -> list[str]:
    return [e.event.type for e in store.events(RUN)]


# -- rounds -----------------------------------------------------------------------------------------------------


def test_a_run_repairs_then_revises_then_verifies_the_best(store: SqliteStore, home: Path) -> None:
    run = start(
        store,
        home,
        kernels("BUILD_FAILED", "INCORRECT", "time_us=80", "time_us=40", "time_us=50"),
        [diagnosis_reply(), diagnosis_reply(), plan_reply(1.6), plan_reply(2.0)],
        rounds=5,
    )
    attempts = store.attempts(RUN)
    assert [(a.action, a.base, a.verdict) for a in attempts] == [
        (Action.DRAFT, None, Verdict.BUILD_FAILED),
        (Action.REPAIR, f"{RUN}.0", Verdict.INCORRECT),
        (Action.REPAIR, f"{RUN}.1", Verdict.PASSED),
        (Action.REVISE, f"{RUN}.2", Verdict.PASSED),
        (Action.REVISE, f"{RUN}.3", Verdict.PASSED),
    ]
    assert [type(a.advice) for a in attempts] == [type(None), Diagnosis, Diagnosis, Plan, Plan]
    assert [(a.predicted_gain, a.measured_gain) for a in attempts[2:]] == [(None, None), (1.6, 2.0), (2.0, 0.8)]
    assert run.state is RunState.DONE
    assert run.device is not None
    assert run.outcome is not None
    assert (run.outcome.best, run.outcome.kernel, run.outcome.win) == (f"{RUN}.3", kernel_id("time_us=40"), True)
    assert run.outcome.reason == "5 rounds spent"
    assert run.outcome.verification is not None
    assert store.result(run.outcome.verification) is not None
    assert run.outcome.speedup is not None
    assert run.outcome.speedup.eager.value == 2.5


def test_every_stage_of_every_round_is_told(store: SqliteStore, home: Path) -> None:
    start(store, home, kernels("time_us=80", "time_us=40"), [plan_reply()], rounds=2)
    told = [e.event for e in store.events(RUN)]
    stages = [(e.stage, e.round) for e in told if e.type == "stage_started"]
    assert stages == [
        ("baseline", -1),
        ("coder", 0),
        ("evaluate", 0),
        ("profile", 0),
        ("judge", 1),
        ("coder", 1),
        ("evaluate", 1),
        ("verify", 1),
    ]
    finished = {(e.stage, e.round): e for e in told if e.type == "stage_finished"}
    assert list(finished) == stages
    assert finished["evaluate", 1].parts_s == {"build": 0.5, "check": 0.25}
    assert finished["judge", 1].usage == Usage(input_tokens=100, output_tokens=10, usd=0.01)
    assert [e.type for e in told if not e.type.startswith("stage")] == [
        "run_started",
        "baseline_measured",
        "attempt_finished",
        "attempt_finished",
        "run_finished",
    ]
    assert [e.best for e in told if e.type == "attempt_finished"] == [True, True]


def test_the_paper_asks_ten_times_and_advises_nine_times_always_on_the_last_kernel(
    store: SqliteStore, home: Path
) -> None:
    outcomes = ["BUILD_FAILED", "INCORRECT", "time_us=90", "time_us=50", "time_us=60", "RUNTIME_ERROR", "time_us=70"]
    outcomes += ["time_us=65", "TIMEOUT", "time_us=75"]
    plan = '{"bottleneck": "memory", "optimisation method": "fuse", "modification plan": "fuse the loops"}'
    passed = [text.startswith("time_us") for text in outcomes]
    coder = ScriptedModel("scripted:coder", kernels(*outcomes))
    judge = ScriptedModel("scripted:judge", [plan if ok else diagnosis_reply() for ok in passed[:9]])
    evaluator = ScriptedEvaluator()
    scripted_run(store, scripted_spec(preset="paper"))
    run = go(scripted_context(store, coder, judge, evaluator), home)

    calls = store.calls(RUN)
    expected = [("coder", "draft", 0)]
    for number, ok in enumerate(passed[:9], start=1):
        expected += [("judge", "advise" if ok else "diagnose", number), ("coder", "revise" if ok else "repair", number)]
    assert [(c.role.value, c.purpose, int(c.attempt_id.split(".")[1])) for c in calls] == expected
    assert len(coder.requests) == 10
    assert len(judge.requests) == 9

    attempts = store.attempts(RUN)
    assert [a.base for a in attempts] == [None, *(f"{RUN}.{n}" for n in range(9))]
    for call in calls[1:]:  # each question shows the last kernel
        base = int(call.attempt_id.split(".")[1]) - 1
        assert f"# {outcomes[base]}\n" in call.messages[-1].content
    profiled = [key for key in evaluator.keys if "/profile/" in key]
    assert profiled == [f"{RUN}.{n}/profile/0" for n in range(9) if passed[n]]
    assert evaluator.keys[-1] == f"{RUN}.3/verify/0"  # the best was kept aside
    assert run.outcome is not None
    assert run.outcome.best == f"{RUN}.3"


def test_a_kernel_that_comes_again_is_not_evaluated_again(store: SqliteStore, home: Path) -> None:
    evaluator = ScriptedEvaluator()
    scripted_run(store, scripted_spec(rounds=2))
    go(scripted_context(store, kernels("time_us=80", "time_us=80"), [plan_reply()], evaluator), home)
    first, second = store.attempts(RUN)
    assert (second.evaluation, second.time_us) == (first.evaluation, 80.0)
    assert second.verdict is Verdict.PASSED
    assert sum("/evaluate/" in key for key in evaluator.keys) == 1
    assert "Round 1 wrote the kernel of round 0 again: its evaluation stands." in notes(store)


def test_what_was_tried_is_told_to_the_next_round(store: SqliteStore, home: Path) -> None:
    start(store, home, kernels("time_us=80", "REJECTED", "time_us=40"), [plan_reply(), diagnosis_reply()], rounds=3)
    question = store.calls(RUN)[-1].messages[-1].content
    assert "fuse the loops" in question
    assert "It is REJECTED." in question


@pytest.mark.parametrize("switch", ["self_refine", "correction"])
def test_without_a_judge_the_coder_goes_on_alone(store: SqliteStore, home: Path, switch: str) -> None:
    preset = PRESETS["paper"].model_copy(update={switch: switch == "self_refine"})
    judge = [plan_reply()]
    start(store, home, kernels("INCORRECT", "time_us=80", "time_us=70"), judge, rounds=3, preset=preset)
    purposes = [c.purpose for c in store.calls(RUN)]
    advised = [] if switch == "self_refine" else ["advise"]
    assert purposes == ["draft", "repair", *advised, "revise"]


def test_correction_alone_stops_at_the_first_pass(store: SqliteStore, home: Path) -> None:
    preset = PRESETS["paper"].model_copy(update={"optimization": False})
    run = start(store, home, kernels("INCORRECT", "time_us=80"), [diagnosis_reply()], preset=preset)
    assert len(store.attempts(RUN)) == 2
    assert run.outcome is not None
    assert run.outcome.win


# -- replies that cannot be read --------------------------------------------------------------------------------


def test_an_unreadable_reply_costs_one_question(store: SqliteStore, home: Path) -> None:
    start(store, home, [UNREADABLE, kernel_reply("time_us=80")], rounds=1)
    asked, again = store.calls(RUN)
    assert (asked.purpose, again.purpose, again.position) == ("draft", "reask", 1)
    assert UNREADABLE in again.messages[-2].content
    assert store.attempts(RUN)[0].verdict is Verdict.PASSED


def test_two_unreadable_replies_are_a_failed_round(store: SqliteStore, home: Path) -> None:
    run = start(store, home, [UNREADABLE, UNREADABLE, kernel_reply("time_us=80")], rounds=2)
    first, second = store.attempts(RUN)
    assert (first.kernel, first.verdict) == (None, None)
    assert first.reply_error
    assert first.finished is not None
    assert (second.action, second.verdict) == (Action.DRAFT, Verdict.PASSED)
    assert run.outcome is not None
    assert run.outcome.win


def test_a_judge_that_cannot_be_read_is_done_without(store: SqliteStore, home: Path) -> None:
    judge = ScriptedModel("scripted:judge", [UNREADABLE, UNREADABLE])
    scripted_run(store, scripted_spec(rounds=2))
    go(scripted_context(store, kernels("time_us=80", "time_us=40"), judge), home)
    second = store.attempts(RUN)[1]
    assert (second.advice, second.verdict) == (None, Verdict.PASSED)
    assert all(request.json_schema for request in judge.requests)
    assert any("goes on without advice" in note for note in notes(store))


# -- ends -------------------------------------------------------------------------------------------------------


def test_no_win_is_a_result(store: SqliteStore, home: Path) -> None:
    run = start(store, home, kernels("time_us=120"), rounds=1)
    assert run.state is RunState.DONE
    assert run.outcome is not None
    assert (run.outcome.best, run.outcome.kernel, run.outcome.win) == (None, None, False)
    assert run.outcome.speedup is not None  # as verified: why it is no win
    assert events(store)[-1] == "run_finished"


def test_a_run_in_which_nothing_passed_verifies_nothing(store: SqliteStore, home: Path) -> None:
    run = start(store, home, kernels("INCORRECT"), rounds=1)
    assert run.outcome is not None
    assert (run.outcome.win, run.outcome.verification) == (False, None)
    assert run.outcome.reason == "1 round spent; no kernel passed"


def test_where_the_best_does_not_hold_up_the_next_best_is_verified(store: SqliteStore, home: Path) -> None:
    run = start(store, home, kernels("time_us=80", "time_us=40 unstable"), [plan_reply()], rounds=2)
    assert run.outcome is not None
    assert (run.outcome.best, run.outcome.win) == (f"{RUN}.0", True)
    assert any("Round 1 was not confirmed" in note for note in notes(store))


@pytest.mark.parametrize(
    ("budget", "rounds", "reason"),
    [
        ({"rounds": 3}, 3, "3 rounds spent"),
        ({"usd": 0.05}, 3, "$0.05 of $0.05 spent, another round would exceed it"),
        ({"target_speedup": 1.2}, 1, "target 1.2x reached"),
        ({"patience": 2}, 3, "no better kernel in 2 rounds"),
    ],
)
def test_a_budget_ends_the_search_and_the_best_is_verified(
    store: SqliteStore, home: Path, budget: dict[str, Any], rounds: int, reason: str
) -> None:
    outcomes = kernels("time_us=80", *(f"time_us={81 + n}" for n in range(9)))
    run = start(store, home, outcomes, [plan_reply()] * 9, **budget)
    assert run.outcome is not None
    assert (len(store.attempts(RUN)), run.outcome.reason) == (rounds, reason)
    assert (run.outcome.best, run.outcome.win) == (f"{RUN}.0", True)


def test_a_budget_of_seconds_leaves_time_for_the_verification(store: SqliteStore, home: Path) -> None:
    class Slow(ScriptedModel):
        async def complete(self, request: ChatRequest) -> ChatReply:
            await asyncio.sleep(0.2)
            return await super().complete(request)

    scripted_run(store, scripted_spec(seconds=0.5))
    run = go(scripted_context(store, Slow("scripted:coder", kernels("time_us=80"))), home)
    assert len(store.attempts(RUN)) == 1
    assert run.outcome is not None
    assert run.outcome.win


def test_an_unknown_price_is_said_once_and_does_not_count(store: SqliteStore, home: Path) -> None:
    coder = ScriptedModel("scripted:coder", kernels("time_us=80", "time_us=40"), usd=None)
    scripted_run(store, scripted_spec(rounds=2, usd=0.03))
    go(scripted_context(store, coder, [plan_reply()]), home)
    assert len(store.attempts(RUN)) == 2
    assert [note for note in notes(store) if "price" in note] == [
        "The price of scripted:coder is not known: its calls do not count against the budget."
    ]


# -- waiting ----------------------------------------------------------------------------------------------------


def answer(store: SqliteStore, text: str) -> None:
    """What `cudaforge reply` does."""
    run = store.run(RUN)
    assert run is not None
    call = store.call(run.waiting_for)
    assert call is not None
    store.save_call(call.model_copy(update={"reply": text, "state": CallState.DONE}))


def test_a_manual_model_suspends_the_run_until_its_reply_is_stored(store: SqliteStore, home: Path) -> None:
    scripted_run(store, scripted_spec(rounds=2))
    context = Context(
        store=store,
        coder=ManualModel(),
        judge=ManualModel(),
        evaluator=ScriptedEvaluator(),
        policy=scripted_context(store, []).policy,
    )
    waits = []
    for reply in ("", UNREADABLE, kernel_reply("time_us=80"), plan_reply(), kernel_reply("time_us=40")):
        if reply:
            answer(store, reply)
        run = go(context, home)
        waits.append(run.waiting_for)
        if run.waiting_for:
            assert run.state is RunState.SUSPENDED
            assert events(store)[-1] == "run_suspended"
            call = store.call(run.waiting_for)
            assert call is not None
            assert call.state is CallState.WAITING
    assert waits == [f"{RUN}.0/coder/0", f"{RUN}.0/coder/1", f"{RUN}.1/judge/0", f"{RUN}.1/coder/0", ""]
    assert run.state is RunState.DONE
    assert run.outcome is not None
    assert run.outcome.win
    assert len(store.calls(RUN)) == 4


def test_driving_on_without_the_reply_waits_on(store: SqliteStore, home: Path) -> None:
    scripted_run(store, scripted_spec())
    context = scripted_context(store, ScriptedModel("m", [], surprises=[Suspended("not yet", waiting_for="x")] * 3))
    for _ in range(3):
        assert go(context, home).state is RunState.SUSPENDED
    assert len(store.calls(RUN)) == 1


@pytest.mark.parametrize("kind", ["baseline", "evaluate", "profile", "verify"])
def test_a_measurement_that_comes_later_suspends_the_run(store: SqliteStore, home: Path, kind: str) -> None:
    waiting = Suspended("The spool has it.", waiting_for=f"some/{kind}/0")
    evaluator = ScriptedEvaluator(surprises={kind: [waiting, waiting]})
    scripted_run(store, scripted_spec(rounds=2))
    context = scripted_context(store, kernels("time_us=80", "time_us=40"), [plan_reply()], evaluator)
    for _ in range(2):
        run = go(context, home)
        assert (run.state, run.waiting_for) == (RunState.SUSPENDED, f"some/{kind}/0")
    run = go(context, home)
    assert (run.state, run.waiting_for) == (RunState.DONE, "")
    asked = [key for key in evaluator.keys if f"/{kind}/" in key]
    assert asked[0] == asked[1] == asked[2]
    assert len(store.calls(RUN)) == 3


# -- failures of ours -------------------------------------------------------------------------------------------


def test_a_refused_model_stores_the_run_as_failed_and_loses_nothing(store: SqliteStore, home: Path) -> None:
    refused = ModelError("The key was refused.", "Set OPENAI_API_KEY.")
    judge = ScriptedModel("scripted:judge", [plan_reply()], surprises=[refused])
    evaluator = ScriptedEvaluator()
    scripted_run(store, scripted_spec(rounds=2))
    context = scripted_context(store, kernels("time_us=80", "time_us=40"), judge, evaluator)
    with pytest.raises(ModelError):
        go(context, home)
    failed = store.run(RUN)
    assert failed is not None
    assert (failed.state, failed.error) == (RunState.FAILED, "The key was refused.")
    assert [c.state for c in store.calls(RUN)] == [CallState.DONE, CallState.FAILED]

    run = go(context, home)
    assert (run.state, run.error) == (RunState.DONE, "")
    assert [c.key for c in store.calls(RUN)][1:3] == [f"{RUN}.1/judge/0", f"{RUN}.1/judge/1"]
    assert [c.position for c in store.calls(RUN) if c.role == "judge"] == [0, 0]
    assert len(evaluator.keys) == len(set(evaluator.keys))


@pytest.mark.parametrize("failure", [EvaluatorError("The GPU fell off."), Verdict.INFRASTRUCTURE])
def test_a_failure_of_ours_is_tried_again_under_a_new_key(
    store: SqliteStore, home: Path, failure: EvaluatorError | Verdict
) -> None:
    evaluator = ScriptedEvaluator(surprises={"evaluate": [failure, failure], "verify": [failure]})
    scripted_run(store, scripted_spec(rounds=1))
    run = go(scripted_context(store, kernels("time_us=80"), evaluator=evaluator), home)
    assert run.outcome is not None
    assert run.outcome.win
    assert evaluator.keys[1:] == [
        *(f"{RUN}.0/evaluate/{n}" for n in range(3)),
        *(f"{RUN}.0/verify/{n}" for n in range(2)),
    ]
    assert store.attempts(RUN)[0].evaluation == f"{RUN}.0/evaluate/2"
    assert sum("no fault of the kernel" in note for note in notes(store)) == 3


@pytest.mark.parametrize("failure", [EvaluatorError("The GPU fell off."), Verdict.INFRASTRUCTURE])
@pytest.mark.parametrize("kind", ["evaluate", "verify"])
def test_a_failure_of_ours_that_stays_is_no_mark_against_the_kernel(
    store: SqliteStore, home: Path, failure: EvaluatorError | Verdict, kind: str
) -> None:
    evaluator = ScriptedEvaluator(surprises={kind: [failure] * 3})
    scripted_run(store, scripted_spec(rounds=1))
    context = scripted_context(store, kernels("time_us=80"), evaluator=evaluator)
    with pytest.raises(EvaluatorError):
        go(context, home)
    failed = store.run(RUN)
    assert failed is not None
    assert failed.state is RunState.FAILED
    assert store.attempts(RUN)[0].verdict is not Verdict.INFRASTRUCTURE

    run = go(context, home)  # mended meanwhile
    assert run.outcome is not None
    assert run.outcome.win
    assert f"{RUN}.0/{kind}/3" in evaluator.keys  # not the keys that hold the old failure
    assert len(store.calls(RUN)) == 1


def test_a_profiler_that_fails_does_not_fail_the_run(store: SqliteStore, home: Path) -> None:
    evaluator = ScriptedEvaluator(surprises={"profile": [EvaluatorError("No permission.")] * 3})
    scripted_run(store, scripted_spec(rounds=2))
    run = go(scripted_context(store, kernels("time_us=80", "time_us=40"), [plan_reply()], evaluator), home)
    assert run.state is RunState.DONE
    assert store.attempts(RUN)[0].profile is None


def test_a_mistake_of_ours_is_stored_with_its_name(store: SqliteStore, home: Path) -> None:
    scripted_run(store, scripted_spec())
    with pytest.raises(ZeroDivisionError):
        go(scripted_context(store, ScriptedModel("m", [], surprises=[ZeroDivisionError("oh")])), home)
    run = store.run(RUN)
    assert run is not None
    assert (run.state, run.error) == (RunState.FAILED, "ZeroDivisionError: oh")


def test_an_unknown_run_is_said(store: SqliteStore, home: Path) -> None:
    with pytest.raises(StoreError, match="rnothing"):
        go(scripted_context(store, []), home, "rnothing")


def test_a_lost_checkpoint_file_costs_nothing(store: SqliteStore, home: Path) -> None:
    refused = ModelError("Refused.")
    coder = ScriptedModel("scripted:coder", kernels("time_us=80", "time_us=40"), surprises=[None, refused])
    evaluator = ScriptedEvaluator()
    scripted_run(store, scripted_spec(rounds=2))
    context = scripted_context(store, coder, [plan_reply()], evaluator)
    with pytest.raises(ModelError):
        go(context, home)
    for file in home.glob("checkpoints.db*"):
        file.unlink()
    run = go(context, home)
    assert run.outcome is not None
    assert run.outcome.best == f"{RUN}.1"
    assert len(evaluator.keys) == len(set(evaluator.keys))
    assert [len(coder.requests), len(store.attempts(RUN))] == [3, 2]


def test_damaged_checkpoints_are_named_and_may_be_deleted(store: SqliteStore, home: Path) -> None:
    scripted_run(store, scripted_spec(rounds=1))
    context = scripted_context(store, kernels("time_us=80"))
    file = home / "checkpoints.db"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"checkpoints\.db cannot be used"):
        go(context, home)
    run = store.run(RUN)
    assert run is not None
    assert run.state is RunState.FAILED
    file.unlink()
    assert go(context, home).state is RunState.DONE


# -- cancellation, and drivers ----------------------------------------------------------------------------------


class Patient(ScriptedModel):
    """Its first call waits to be cancelled."""

    def __init__(self, replies: Sequence[str]) -> None:
        super().__init__("scripted:coder", replies)
        self.asked = asyncio.Event()

    async def complete(self, request: ChatRequest) -> ChatReply:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        return await super().complete(request)


def test_a_cancelled_run_is_stopped_and_can_go_on(store: SqliteStore, home: Path) -> None:
    model = Patient(kernels("time_us=80"))
    scripted_run(store, scripted_spec(rounds=1))
    context = scripted_context(store, model)

    async def cancel() -> Run:
        task = asyncio.create_task(drive(RUN, context, home / "checkpoints.db"))
        await model.asked.wait()
        task.cancel()
        return await task

    run = asyncio.run(cancel())
    assert run.state is RunState.STOPPED
    assert events(store)[-1] == "run_finished"
    (call,) = store.calls(RUN)
    assert (call.state, call.usage.usd) == (CallState.UNCERTAIN, 0.1)  # may have been charged

    run = go(context, home)
    assert run.state is RunState.DONE
    assert [c.state for c in store.calls(RUN)] == [CallState.UNCERTAIN, CallState.DONE]


def test_a_run_has_one_driver_at_a_time(store: SqliteStore, home: Path) -> None:
    model = Patient(kernels("time_us=80"))
    scripted_run(store, scripted_spec(rounds=1))
    context = scripted_context(store, model)

    async def twice() -> None:
        task = asyncio.create_task(drive(RUN, context, home / "checkpoints.db"))
        await model.asked.wait()
        with pytest.raises(StoreError, match="another"):
            await drive(RUN, context, home / "checkpoints.db")
        task.cancel()
        await task

    asyncio.run(twice())
    assert [c.state for c in store.calls(RUN)] == [CallState.UNCERTAIN]
    assert not list(home.glob(f"{RUN}*.lock"))


def test_runs_share_a_loop_a_store_and_checkpoints(store: SqliteStore, home: Path) -> None:
    spec: RunSpec = scripted_spec(rounds=2)
    ids = [f"r00000000{n:02}" for n in range(4)]
    for run_id in ids:
        scripted_run(store, spec, run_id)

    async def all_of_them() -> list[Run]:
        contexts = [scripted_context(store, kernels("time_us=80", "time_us=40"), [plan_reply()]) for _ in ids]
        pairs = zip(ids, contexts, strict=True)
        return await asyncio.gather(*(drive(i, c, home / "checkpoints.db") for i, c in pairs))

    assert [run.outcome.best if run.outcome else None for run in asyncio.run(all_of_them())] == [f"{i}.1" for i in ids]


def test_runs_that_begin_at_once_with_new_checkpoints_are_in_nobodys_way(tmp_path: Path) -> None:
    """Whoever switches to WAL while another does is told `database is locked` at once."""
    with ThreadPoolExecutor(8) as pool:
        for i in range(40):
            list(pool.map(graph._ready, [tmp_path / f"{i}.db"] * 8))
    with closing(sqlite3.connect(tmp_path / "0.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_finished_run_is_returned_as_it_is(store: SqliteStore, home: Path) -> None:
    run = start(store, home, kernels("time_us=80"), rounds=1)
    told = events(store)
    assert go(scripted_context(store, []), home) == run
    assert events(store) == told


PREAMBLE = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from cudaforge.store.sqlite import SqliteStore
from cudaforge.graph import drive
from support.scripted import *
assert "langgraph" not in sys.modules and "langsmith" not in sys.modules
home = Path(sys.argv[1])
store = SqliteStore(home)
run = scripted_run(store, scripted_spec(rounds=1))
"""


def in_a_fresh_process(script: str, home: Path, **environment: str) -> None:
    """Runs `script` after PREAMBLE; it fails by raising."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + script, str(home)],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_stops_a_run_cleanly(home: Path) -> None:
    script = """
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupted(ScriptedModel):
    async def complete(self, request):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)
run = asyncio.run(drive(run.id, scripted_context(store, Interrupted("m", [])), home / "checkpoints.db"))
assert run.state == "stopped" and store.calls(run.id)[0].state == "uncertain"
"""
    in_a_fresh_process(script, home)


def test_nothing_is_traced_whatever_the_environment_says(home: Path) -> None:
    script = """
class Watching(ScriptedModel):
    async def complete(self, request):
        from langsmith.utils import tracing_is_enabled
        assert tracing_is_enabled() is False
        return await super().complete(request)
context = scripted_context(store, Watching("m", [kernel_reply("time_us=80")]))
assert asyncio.run(drive(run.id, context, home / "checkpoints.db")).outcome.win
"""
    loud = {f"{p}_{n}": "true" for p in ("LANGSMITH", "LANGCHAIN") for n in ("TRACING", "TRACING_V2")}
    in_a_fresh_process(script, home, LANGSMITH_ENDPOINT="http://127.0.0.1:9", LANGSMITH_API_KEY="k", **loud)
