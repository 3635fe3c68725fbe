"""A home of real recorded runs (tests/viewer/data), and larger ones and runs in progress that are made of them."""

from __future__ import annotations

import json
import re
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection, text

from cudaforge.store.codec import stamp
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Attempt, AttemptFinished, Run, RunState, StageFinished, StageStarted, StoredEvent, now

M = TypeVar("M", bound=BaseModel)

ARCHIVE = Path(__file__).resolve().parents[1] / "viewer" / "data" / "home.tar.gz"
PASSED, NO_WIN, WAITING, GPU = "row_softmax", "cross_entropy", "layer_norm_bias", "gemm_bias_gelu"
"""The runs by their task: verified on a CPU; no kernel passed; waits for its Judge; verified on an H100."""
SPEAK_OF_A_RUN = ("id", "run_id", "key", "attempt_id", "best", "waiting_for")
COPIED = {
    "runs": "json_set(body, '$.created', :created, '$.updated', :created)",
    "attempts": "body",
    "events": "body",
    # Lists add up the columns of calls and never read their text, which is most of a home.
    "calls": "json_remove(json_set(body, '$.messages', json('[]')), '$.reply')",
}


def unpack(folder: Path) -> Path:
    """The home, in a new folder below this one."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


def runs_by_task(store: SqliteStore) -> dict[str, str]:
    """The ids of the recorded runs, which are newer than their copies."""
    return {run.spec.task.name: run.id for run in reversed(store.runs())}


def renamed(thing: M, old: str, new: str, **changes: Any) -> M:
    """A copy that speaks of another run or round wherever it spoke of this one."""
    made = json.loads(re.sub(rf'"{re.escape(old)}(?=["/.])', f'"{new}', thing.model_dump_json()))
    return type(thing).model_validate_json(json.dumps({**made, **changes}))


class Copy:
    """A new run that is made of a recorded one, round by round, with all that belongs to each."""

    def __init__(self, store: SqliteStore, source: str, run_id: str, rounds: int = 10, **changes: Any) -> None:
        self.store, self.source, self.id = store, source, run_id
        original = store.run(source)
        assert original is not None
        self.original, created = original, changes.pop("created", now())
        self.attempts = store.attempts(source)
        self.events = _all_events(store, source)
        self.results, self.calls = store.results(source), store.calls(source)
        run = renamed(original, source, run_id, state=RunState.RUNNING, outcome=None, waiting_for="")
        budget = run.spec.budget.model_copy(update={"rounds": rounds})
        spec = run.spec.model_copy(update={"budget": budget, **changes.pop("spec", {})})
        self.run: Run = run.model_copy(update={"spec": spec, "created": created, "updated": created, **changes})
        store.create_run(self.run)
        for key, result in self.results.items():
            if key.startswith(f"{source}/"):  # the baseline
                store.save_result(run_id, key.replace(source, run_id), result)
        for stored in self.events:
            if getattr(stored.event, "round", -1) < 0 and stored.event.type in ("run_started", "baseline_measured"):
                store.append(renamed(stored.event, source, run_id))

    def begin(self, number: int, stage: str = "coder") -> None:
        """Says that a stage of a round has begun, as a worker does."""
        self.store.append(StageStarted(run_id=self.id, attempt_id=f"{self.id}.{number}", round=number, stage=stage))

    def add(self, number: int, of: int | None = None) -> Attempt:
        """Adds a round that is like the recorded round `of`, with calls, results and events, and returns it."""
        of = number if of is None else of
        old, new = f"{self.source}.{of}", f"{self.id}.{number}"
        base = next(a.base for a in self.attempts if a.round == of)
        parent = {base: f"{self.id}.{number - 1}"} if base and of != number else {}
        attempt = renamed(self.attempts[of], old, new, round=number, run_id=self.id)
        based = parent.get(base) or (base.replace(self.source, self.id) if base else None)
        later = self.run.created - self.original.created
        times = {"started": attempt.started + later, "finished": attempt.finished and attempt.finished + later}
        attempt = attempt.model_copy(update={"base": based, **times})
        for key, result in self.results.items():
            if key.startswith(f"{old}/") and "/verify/" not in key:
                self.store.save_result(self.id, key.replace(old, new), result)
        for call in self.calls:
            if call.attempt_id == old:
                self.store.save_call(renamed(call, old, new, run_id=self.id, position=number))
        self.store.save_attempt(attempt)
        for stored in self.events:
            event = stored.event
            mine = isinstance(event, StageStarted | StageFinished | AttemptFinished) and event.attempt_id == old
            if mine and getattr(event, "stage", "") != "verify":
                changes: dict[str, Any] = {"round": number, "run_id": self.id}
                self.store.append(renamed(event, old, new, **changes))
        return attempt

    def finish(self) -> None:
        """Ends it as the recorded one ended."""
        for key, result in self.results.items():
            if "/verify/" in key:
                self.store.save_result(self.id, key.replace(self.source, self.id), result)
        ended = renamed(self.original, self.source, self.id)
        self.store.save_run(self.run.model_copy(update={"state": ended.state, "outcome": ended.outcome}))
        self.store.append(renamed(self.events[-1].event, self.source, self.id))


def many_rounds(store: SqliteStore, source: str, run_id: str, rounds: int) -> str:
    """A finished run of so many rounds: the recorded ones, then those that passed again and again."""
    copy = Copy(store, source, run_id, rounds)
    passed = [a.round for a in copy.attempts if a.passed]
    for number in range(rounds):
        copy.add(number, number if number < len(copy.attempts) else passed[number % len(passed)])
    copy.finish()
    _as_if_it_had_taken_its_time(store, copy.run)
    return run_id


def _as_if_it_had_taken_its_time(store: SqliteStore, run: Run) -> None:
    """Sets the events of a run apart by the seconds that its stages took."""
    at = run.created
    with store._database.write() as connection:
        for stored in _all_events(store, run.id):
            at += timedelta(seconds=stored.event.seconds if isinstance(stored.event, StageFinished) else 0)
            connection.execute(text("UPDATE events SET at = :at WHERE id = :id"), {"at": stamp(at), "id": stored.id})


def many_runs(store: SqliteStore, runs: int) -> None:
    """Copies the recorded runs until there are so many, each a minute older than the one before, without prompts."""
    originals = store.runs()
    with store._database.write() as connection:
        for number in range(runs - len(originals)):
            original = originals[number % len(originals)]
            _copy_rows(connection, original.id, f"r{number:010d}", original.created - timedelta(minutes=number + 1))


def _copy_rows(connection: Connection, old: str, new: str, created: datetime) -> None:
    for table, body in COPIED.items():
        counted = "seq" if table == "calls" else "id" if table == "events" else ""
        columns = [row[1] for row in connection.execute(text(f"PRAGMA table_info({table})")) if row[1] != counted]
        of = "id" if table == "runs" else "run_id"
        values = {column: f"replace({column}, :old, :new)" for column in columns if column in SPEAK_OF_A_RUN}
        values["body"] = f"replace({body}, :old, :new)"
        if table == "runs":
            values |= {"created": ":created", "updated": ":created"}
        chosen = ", ".join(values.get(column, f'"{column}"') for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        connection.execute(
            text(f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {table} WHERE {of} = :old"),
            {"old": old, "new": new, "created": stamp(created)},
        )


def _all_events(store: SqliteStore, run_id: str) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while batch := store.events(run_id, after=found[-1].id if found else 0):
        found += batch
    return found
