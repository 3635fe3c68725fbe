"""SqliteStore: the Store port on one SQLite file, and what the command line and the API ask beyond the port.

Every save is one transaction that is on the disk when it returns, so `kill -9` or a power cut loses nothing that was
acknowledged. Threads may share a store; any number of processes may open the same home, each with a store of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, func, select, update
from sqlalchemy.dialects.sqlite import insert

from cudaforge.errors import StoreError
from cudaforge.evaluation import Baseline, Evaluation, Result, Verification
from cudaforge.jobs import SingleState
from cudaforge.kernel import Kernel
from cudaforge.shapes import (
    DeviceLine,
    EvaluationLine,
    RunCounts,
    RunFilter,
    RunGlance,
    RunLine,
    RunSort,
    Summary,
    TaskLine,
)
from cudaforge.store import queries
from cudaforge.store.artefacts import artefact_path, read_artefact, write_artefact
from cudaforge.store.codec import RESULT_KINDS, decode, decode_event, decode_result, moment, stamp
from cudaforge.store.database import Database
from cudaforge.store.home import Home
from cudaforge.store.models import ARTIFACTS, ATTEMPTS, CALLS, EVENTS, KERNELS, RESULTS, RUNS, TASKS
from cudaforge.store.queue import Queue
from cudaforge.store.rows import (
    attempt_values,
    call_values,
    event_values,
    kernel_values,
    result_values,
    run_values,
    task_values,
)
from cudaforge.store.tokens import Tokens
from cudaforge.task import Task
from cudaforge.trace import Attempt, Call, CallState, Event, Run, StoredEvent, now
from cudaforge_profiling.types import Frozen, Profile

ResultT = TypeVar("ResultT", Baseline, Evaluation, Profile, Verification)


class Report(Frozen):
    """A profile's report file (.ncu-rep)."""

    digest: str
    size: int
    collected: datetime | None = None
    """When `cudaforge gc` deleted the bytes; the profile itself stays."""
    data: bytes | None = None
    """None where collected or lost."""


class SqliteStore:
    """Implements ports.Store. Opening it makes the home where missing and migrates an older database.

    Raises StoreError, here and in every method. Records belong to a run: saving one whose run was never created is
    a StoreError. Objects come back equal to what was saved, but for `Profile.report`, see `result`.
    """

    def __init__(self, home: Path) -> None:
        self.home = Home(Path(home).expanduser().absolute())
        self._database = Database(self.home)
        self.queue = Queue(self._database, self.home.workers)
        self.tokens = Tokens(self._database)

    # -- runs --------------------------------------------------------------------------------------------------

    def create_run(self, run: Run) -> None:
        """Raises StoreError where there is already a run of this id."""
        statement = insert(RUNS).values(run_values(run)).on_conflict_do_nothing()
        with self._database.write() as connection:
            if connection.execute(statement).rowcount == 0:
                raise StoreError(f"There is already a run {run.id}.", "Continue it with `cudaforge resume`.")

    def run(self, run_id: str) -> Run | None:
        body = self._body(RUNS, RUNS.c.id == run_id)
        return None if body is None else decode(Run, body, f"Run {run_id}")

    def save_run(self, run: Run) -> None:
        """Raises StoreError where the run was never created."""
        with self._database.write() as connection:
            if connection.execute(update(RUNS).where(RUNS.c.id == run.id).values(run_values(run))).rowcount == 0:
                raise StoreError(f"There is no run {run.id}.", "`cudaforge runs` lists them.")

    def runs(self, limit: int = 100) -> list[Run]:
        query = select(RUNS.c.id, RUNS.c.body).order_by(RUNS.c.created.desc(), RUNS.c.id.desc()).limit(limit)
        return [decode(Run, body, f"Run {run_id}") for run_id, body in self._rows(query)]

    def find_runs(
        self,
        wanted: RunFilter | None = None,
        *,
        before: str | None = None,
        limit: int = 100,
        sort: RunSort = "created",
        ascending: bool = False,
        skip: int = 0,
    ) -> list[RunLine]:
        """Runs as lists show them, newest first or as `sort` says, runs without a value last.

        `before` is the id of the last run of the previous page; the next page follows it, whatever was added since.
        `skip` leaves out so many, in any order.
        """
        with self._database.read() as connection:
            return queries.find_runs(connection, wanted or RunFilter(), before, limit, sort, ascending, skip)

    def glances(self, run_ids: Sequence[str]) -> dict[str, RunGlance]:
        """What a list draws of each of these runs beside its RunLine."""
        with self._database.read() as connection:
            return queries.glances(connection, run_ids)

    def run_counts(self) -> RunCounts:
        """Runs by state, and what was spent today (UTC)."""
        today = now().replace(hour=0, minute=0, second=0, microsecond=0)
        with self._database.read() as connection:
            return queries.counts(connection, stamp(today))

    def models(self) -> list[str]:
        """Every Coder and Judge that a run has named, sorted."""
        with self._database.read() as connection:
            return queries.models(connection)

    def summary(self, run_id: str) -> Summary | None:
        """Totals of one run: tokens, price, seconds per stage. All from one snapshot."""
        with self._database.read() as connection:
            return queries.summary(connection, run_id)

    # -- attempts and kernels ----------------------------------------------------------------------------------

    def save_attempt(self, attempt: Attempt) -> None:
        with self._database.write() as connection:
            _upsert(connection, ATTEMPTS, "id", attempt_values(attempt))

    def attempt(self, attempt_id: str) -> Attempt | None:
        body = self._body(ATTEMPTS, ATTEMPTS.c.id == attempt_id)
        return None if body is None else decode(Attempt, body, f"Attempt {attempt_id}")

    def attempts(self, run_id: str) -> list[Attempt]:
        query = (
            select(ATTEMPTS.c.id, ATTEMPTS.c.body)
            .where(ATTEMPTS.c.run_id == run_id)
            .order_by(ATTEMPTS.c.round, ATTEMPTS.c.id)
        )
        return [decode(Attempt, body, f"Attempt {attempt_id}") for attempt_id, body in self._rows(query)]

    def save_kernel(self, kernel: Kernel) -> None:
        with self._database.write() as connection:
            connection.execute(insert(KERNELS).values(kernel_values(kernel)).on_conflict_do_nothing())

    def kernel(self, kernel_id: str) -> Kernel | None:
        body = self._body(KERNELS, KERNELS.c.id == kernel_id)
        return None if body is None else decode(Kernel, body, f"Kernel {kernel_id}")

    # -- model calls -------------------------------------------------------------------------------------------

    def save_call(self, call: Call) -> None:
        """Inserts or replaces by key, but leaves a stored call that has a reply where the new one has none."""
        with self._database.write() as connection:
            values = call_values(call)
            kept = None if values["answered"] else CALLS.c.answered.is_(False)
            _upsert(connection, CALLS, "key", values, only_if=kept)

    def call(self, key: str) -> Call | None:
        body = self._body(CALLS, CALLS.c.key == key)
        return None if body is None else decode(Call, body, f"Call {key}")

    def calls(self, run_id: str, attempt_id: str | None = None) -> list[Call]:
        """Of one round where `attempt_id` names it; prompts are long, so the others are not read then."""
        query = select(CALLS.c.key, CALLS.c.body).where(CALLS.c.run_id == run_id).order_by(CALLS.c.started, CALLS.c.seq)
        if attempt_id is not None:
            query = query.where(CALLS.c.attempt_id == attempt_id)
        return [decode(Call, body, f"Call {key}") for key, body in self._rows(query)]

    def pending(self, run_id: str | None = None) -> list[Call]:
        """Calls that wait for a reply from elsewhere (`manual:`), of one run or of all, oldest first."""
        query = (
            select(CALLS.c.key, CALLS.c.body)
            .where(CALLS.c.state == CallState.WAITING.value)
            .order_by(CALLS.c.started, CALLS.c.seq)
        )
        if run_id is not None:
            query = query.where(CALLS.c.run_id == run_id)
        return [decode(Call, body, f"Call {key}") for key, body in self._rows(query)]

    # -- results -----------------------------------------------------------------------------------------------

    def save_result(self, run_id: str, key: str, result: Result) -> None:
        """Inserts or replaces by key."""
        digest = None
        if isinstance(result, Profile) and result.report is not None:
            digest = self._put(result.report, "report")
            result = result.model_copy(update={"report": None})
        with self._database.write() as connection:
            _upsert(connection, RESULTS, "key", result_values(run_id, key, result, digest))

    def result(self, key: str) -> Result | None:
        """What was saved under the key. A Profile comes without its report, which is large and seldom read:
        `report` has it."""
        with self._database.read() as connection:
            row = connection.execute(select(RESULTS.c.kind, RESULTS.c.body).where(RESULTS.c.key == key)).one_or_none()
        return None if row is None else decode_result(row.kind, row.body, f"Result {key}")

    def results(self, run_id: str) -> dict[str, Result]:
        """All of a run by key, in the order in which they were first saved."""
        return self._results(RESULTS.c.run_id == run_id)

    def results_of(self, run_id: str, model: type[ResultT]) -> dict[str, ResultT]:
        """Those of one class, without reading the others: `results_of(run.id, Verification)`."""
        kind = next(kind for kind, known in RESULT_KINDS.items() if known is model)
        found = self._results(RESULTS.c.run_id == run_id, RESULTS.c.kind == kind)
        return {key: result for key, result in found.items() if isinstance(result, model)}

    def _results(self, *conditions: Any) -> dict[str, Result]:
        query = (
            select(RESULTS.c.key, RESULTS.c.kind, RESULTS.c.body)
            .where(*conditions)
            .order_by(RESULTS.c.created, RESULTS.c.key)
        )
        return {key: decode_result(kind, body, f"Result {key}") for key, kind, body in self._rows(query)}

    def report(self, key: str) -> Report | None:
        """The report file of the profile under this key; None where the result is not there or has none."""
        query = (
            select(RESULTS.c.report, ARTIFACTS.c.size, ARTIFACTS.c.collected)
            .join(ARTIFACTS, RESULTS.c.report == ARTIFACTS.c.digest)
            .where(RESULTS.c.key == key)
        )
        rows = self._rows(query)
        if not rows:
            return None
        digest, size, collected = rows[0]
        data = read_artefact(self.home.artifacts, digest) if collected is None else None
        return Report(digest=digest, size=size, collected=moment(collected) if collected else None, data=data)

    # -- what a service was given ------------------------------------------------------------------------------

    def keep_task(self, task: Task, submitter: str) -> bool:
        """Keeps a task for later runs. False where it is known already, whatever its name."""
        statement = insert(TASKS).values(task_values(task, submitter)).on_conflict_do_nothing()
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

    def task(self, task_id: str) -> Task | None:
        body = self._body(TASKS, TASKS.c.id == task_id)
        return None if body is None else decode(Task, body, f"Task {task_id}")

    def find_tasks(self, name: str | None = None, *, before: str | None = None, limit: int = 100) -> list[TaskLine]:
        """Tasks as lists show them, newest first; `before` as in `find_runs`."""
        with self._database.read() as connection:
            return queries.find_tasks(connection, name, before, limit)

    def find_singles(
        self, state: SingleState | None = None, *, before: str | None = None, limit: int = 100
    ) -> list[EvaluationLine]:
        """Single evaluations as lists show them, newest first; `before` as in `find_runs`."""
        with self._database.read() as connection:
            return queries.find_singles(connection, state.value if state else None, before, limit)

    def devices(self) -> list[DeviceLine]:
        """Devices on which a run has measured anything."""
        with self._database.read() as connection:
            return queries.devices(connection)

    def newest_event(self) -> int:
        """Id of the last event; 0 where there is none."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.max(EVENTS.c.id))).scalar_one() or 0)

    # -- events ------------------------------------------------------------------------------------------------

    def append(self, event: Event) -> int:
        with self._database.write() as connection:  # the values are made inside: times then grow as ids do
            return int(
                connection.execute(insert(EVENTS).values(event_values(event)).returning(EVENTS.c.id)).scalar_one()
            )

    def events(self, run_id: str | None = None, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        query = select(EVENTS.c.id, EVENTS.c.at, EVENTS.c.body).where(EVENTS.c.id > after)
        if run_id is not None:
            query = query.where(EVENTS.c.run_id == run_id)
        return [_stored(*row) for row in self._rows(query.order_by(EVENTS.c.id).limit(limit))]

    def last_event(self, run_id: str) -> StoredEvent | None:
        """The newest event of a run."""
        query = select(EVENTS.c.id, EVENTS.c.at, EVENTS.c.body).where(EVENTS.c.run_id == run_id)
        rows = self._rows(query.order_by(EVENTS.c.id.desc()).limit(1))
        return _stored(*rows[0]) if rows else None

    # -- artefacts ---------------------------------------------------------------------------------------------

    def put_artifact(self, data: bytes) -> str:
        return self._put(data, "blob")

    def put_report(self, data: bytes) -> str:
        """Keeps a profiler's report, which `cudaforge gc` may delete, and returns its digest."""
        return self._put(data, "report")

    def artifact(self, digest: str) -> bytes | None:
        """The bytes; None where they were never put or have been collected. Raises StoreError where damaged."""
        return read_artefact(self.home.artifacts, digest)

    def close(self) -> None:
        """Lets go of the files. Idempotent."""
        self._database.close()

    # -- within ------------------------------------------------------------------------------------------------

    def _put(self, data: bytes, kind: str) -> str:
        digest = write_artefact(self.home.artifacts, data)
        with self._database.write() as connection:
            path = artefact_path(self.home.artifacts, digest)
            if path is None or not path.is_file():  # gc, which holds the write lock as we do now, was in between
                write_artefact(self.home.artifacts, data)
            values = {"digest": digest, "kind": kind, "size": len(data), "created": stamp(now()), "collected": None}
            statement = insert(ARTIFACTS).values(values)
            again: dict[str, Any] = {"created": statement.excluded.created, "collected": None}
            if kind == "blob":  # what was a report as well is now kept for good; never the other way round
                again["kind"] = kind
            connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=again))
        return digest

    def _body(self, table: Table, condition: Any) -> str | None:
        with self._database.read() as connection:
            return connection.execute(select(table.c.body).where(condition)).scalar_one_or_none()

    def _rows(self, query: Any) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(query).all()


def _stored(event_id: int, at: str, body: str) -> StoredEvent:
    return StoredEvent(id=event_id, at=moment(at), event=decode_event(body, f"Event {event_id}"))


def _upsert(connection: Connection, table: Table, key: str, values: dict[str, Any], only_if: Any = None) -> None:
    """INSERT ... ON CONFLICT(key) DO UPDATE, which keeps the row's place, where REPLACE would move it to the end."""
    statement = insert(table).values(values)
    # A result keeps the time at which it was first saved.
    changed = {name: statement.excluded[name] for name in values if name not in (key, "created")}
    connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=changed, where=only_if))
