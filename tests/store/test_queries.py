from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import records

from cudaforge.shapes import RunFilter, Spent
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import CallState, RunState, StageFinished, StageStarted, Usage

RUN = "r000000001"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def test_runs_are_found_by_state_and_by_task_name_or_id(store: SqliteStore) -> None:
    store.create_run(records.run("r1", minute=1, name="softmax"))
    store.create_run(records.run("r2", minute=2, name="gemm", state=RunState.DONE))
    store.create_run(records.run("r3", minute=3, name="softmax", state=RunState.DONE))

    def found(**filters: object) -> list[str]:
        return [line.id for line in store.find_runs(RunFilter.model_validate(filters))]

    assert found() == ["r3", "r2", "r1"]
    assert found(state=RunState.DONE) == ["r3", "r2"]
    assert found(task="softmax") == ["r3", "r1"]
    assert found(task="softmax", state=RunState.RUNNING) == ["r1"]
    assert found(task=records.task().id) == ["r3", "r2", "r1"]  # a task's name does not count for its id
    assert found(task="unknown") == []


def test_pages_follow_each_other_though_runs_are_added_and_share_a_moment(store: SqliteStore) -> None:
    for number in range(7):
        store.create_run(records.run(f"r{number}", minute=number // 3))
    first = store.find_runs(limit=3)
    store.create_run(records.run("r9", minute=99))
    second = store.find_runs(limit=3, before=first[-1].id)
    third = store.find_runs(limit=3, before=second[-1].id)
    assert [line.id for line in first + second + third] == [f"r{number}" for number in reversed(range(7))]
    assert store.find_runs(before=third[-1].id) == []
    assert store.find_runs(before="unknown") == []


def test_a_line_says_what_a_list_shows(store: SqliteStore) -> None:
    run = records.run(RUN, state=RunState.SUSPENDED, waiting_for="x/coder/0", outcome=records.outcome(RUN))
    store.create_run(run)
    store.save_attempt(records.attempt(RUN, 0))
    store.save_call(records.answered())
    (line,) = store.find_runs()
    assert (line.id, line.state, line.created, line.updated) == (RUN, run.state, run.created, run.updated)
    assert (line.task, line.task_name, line.device) == (run.spec.task.id, "softmax", "Abacus 9000")
    assert (line.waiting_for, line.win, line.best, line.attempts) == ("x/coder/0", True, f"{RUN}.3", 1)
    assert (line.speedup, line.speedup_compile) == (records.SPEEDUP.eager, 1.5)
    assert (line.spent.tokens, line.spent.usd) == (120, 0.25)


def test_a_run_without_outcome_has_no_speedup(store: SqliteStore) -> None:
    store.create_run(records.run(RUN))
    (line,) = store.find_runs()
    assert (line.win, line.best, line.speedup, line.spent) == (None, None, None, Spent())


def test_a_summary_adds_up_calls_and_stages_of_its_run_alone(store: SqliteStore) -> None:
    store.create_run(records.run(RUN))
    store.create_run(records.run("r2"))
    store.save_call(records.answered(f"{RUN}.0/coder/0"))
    store.save_call(records.call(f"{RUN}.1/coder/0", state=CallState.UNCERTAIN, usage=Usage(input_tokens=5, usd=0.5)))
    store.save_call(records.answered("r2.0/coder/0", run_id="r2"))
    for stage, seconds in (("coder", 1.5), ("evaluate", 2.0), ("coder", 0.25)):
        store.append(StageStarted(run_id=RUN, stage=stage))
        store.append(StageFinished(run_id=RUN, stage=stage, seconds=seconds))
    store.append(StageFinished(run_id="r2", stage="coder", seconds=100))
    store.save_attempt(records.attempt(RUN, 0))
    summary = store.summary(RUN)
    assert summary is not None
    assert summary.spent == Spent(
        calls=2, uncertain_calls=1, input_tokens=105, output_tokens=20, cached_tokens=10, usd_known=0.75
    )
    assert (summary.spent.usd, summary.spent.tokens) == (0.75, 125)
    assert list(summary.stages_s.items()) == [("coder", 1.75), ("evaluate", 2.0)]
    assert (summary.attempts, summary.events) == (1, 6)


def test_a_price_that_is_not_known_is_said_to_be_unknown(store: SqliteStore) -> None:
    store.create_run(records.run(RUN))
    store.save_call(records.answered(f"{RUN}.0/coder/0"))
    store.save_call(records.answered(f"{RUN}.1/coder/0", usage=Usage(input_tokens=7)))
    store.save_call(records.call(f"{RUN}.2/coder/0", state=CallState.WAITING))  # costs nothing yet
    summary = store.summary(RUN)
    assert summary is not None
    assert (summary.spent.usd, summary.spent.usd_known, summary.spent.unpriced_calls) == (None, 0.25, 1)


def test_there_is_no_summary_of_a_run_that_is_not_there(store: SqliteStore) -> None:
    assert store.summary("unknown") is None


def test_pending_calls_are_those_that_wait(store: SqliteStore) -> None:
    for run_id in ("r1", "r2"):
        store.create_run(records.run(run_id))
    late = records.call("r1.0/coder/0", run_id="r1", second=9, state=CallState.WAITING)
    early = records.call("r2.0/coder/0", run_id="r2", second=1, state=CallState.WAITING)
    store.save_call(late)
    store.save_call(early)
    store.save_call(records.answered("r1.1/coder/0", run_id="r1"))
    assert store.pending() == [early, late]
    assert store.pending("r1") == [late]
    store.save_call(records.answered(late.key, run_id="r1"))
    assert store.pending("r1") == []


def test_lists_are_read_by_index_without_sorting(store: SqliteStore, tmp_path: Path) -> None:
    for query in (
        "SELECT id FROM runs ORDER BY created DESC, id DESC LIMIT 9",
        "SELECT id FROM runs WHERE state = 'done' ORDER BY created DESC, id DESC LIMIT 9",
        "SELECT id FROM runs WHERE task_name = 'x' AND (created, id) < ('2', 'r') ORDER BY created DESC, id DESC",
        "SELECT body FROM attempts WHERE run_id = 'r' ORDER BY round, id",
        "SELECT body FROM calls WHERE run_id = 'r' ORDER BY started, seq",
        "SELECT body FROM calls WHERE state = 'waiting' ORDER BY started, seq",
        "SELECT body FROM events WHERE run_id = 'r' AND id > 5 ORDER BY id LIMIT 9",
    ):
        with closing(sqlite3.connect(tmp_path / "cudaforge.db")) as connection:
            plan = " ".join(str(row) for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "INDEX" in plan and "TEMP B-TREE" not in plan, query
