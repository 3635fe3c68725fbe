"""The queue: what was submitted to a service, until a worker has carried it out.

Jobs live in the database, so a restart of anything loses none. A job that a worker has begun is *held* by an flock on
the worker's file in `workers/`: the kernel drops it the moment that process ends, however it ends, and never while it
lives, so no clock decides whether somebody else may take over. (Workers and service therefore share one host. And the
run itself is held once more by graph.drive.) Every step is one transaction.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from cudaforge.errors import ConflictError, KeyReuseError, LimitError, StoreError
from cudaforge.jobs import (
    MAX_DELIVERIES,
    Answer,
    Bounds,
    Job,
    JobState,
    Once,
    SingleEvaluation,
    SingleState,
    WorkerInfo,
)
from cudaforge.store.codec import decode, moment, stamp
from cudaforge.store.database import Database
from cudaforge.store.models import ANSWERS, CALLS, EVENTS, JOBS, KERNELS, RUNS, SINGLES, TASKS, WORKERS
from cudaforge.store.rows import call_values, event_values, kernel_values, run_values, single_values, task_values
from cudaforge.trace import Call, CallState, Outcome, Run, RunFinished, RunQueued, RunState, Usage, now

ANSWERS_KEPT = timedelta(hours=24)
ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value, JobState.WAITING.value)


class Queue:
    """Jobs of one home. Threads may share it. Raises StoreError in every method."""

    def __init__(self, database: Database, workers: Path) -> None:
        self._database = database
        self._workers = workers
        """Folder of the workers' lock files."""

    # -- submitting --------------------------------------------------------------------------------------------

    def submit(
        self, what: Run | SingleEvaluation, submitter: str, bounds: Bounds, answer: Answer, once: Once | None = None
    ) -> Answer:
        """Stores a run or a single evaluation and queues it. Returns `answer`, or the one that `once` had before.

        Raises LimitError where the queue or the submitter has no room, and what `answered` raises.
        """
        with self._database.write() as connection:
            if once and (earlier := _answered(connection, once)):
                return earlier
            _check_room(connection, submitter, bounds)
            task = what.spec.task if isinstance(what, Run) else what.task
            connection.execute(insert(TASKS).values(task_values(task, submitter)).on_conflict_do_nothing())
            if isinstance(what, SingleEvaluation):
                connection.execute(insert(KERNELS).values(kernel_values(what.kernel)).on_conflict_do_nothing())
            if isinstance(what, Run):
                connection.execute(insert(RUNS), run_values(what))
                connection.execute(insert(EVENTS), event_values(RunQueued(run_id=what.id, reason="submitted")))
            else:
                connection.execute(insert(SINGLES), single_values(what))
            kind = "run" if isinstance(what, Run) else "evaluation"
            row = {"id": what.id, "kind": kind, "submitter": submitter, "state": JobState.QUEUED.value}
            connection.execute(insert(JOBS), {**row, "deliveries": 0, "cancel": False, "served": ""})
            if once:
                _remember(connection, once, answer)
        return answer

    def answered(self, once: Once) -> Answer | None:
        """What a request was answered with before. Raises KeyReuseError where its key belonged to something else."""
        with self._database.read() as connection:
            return _answered(connection, once)

    def remember(self, once: Once, answer: Answer) -> Answer:
        """Keeps an answer for a repeated request; of two at the same time the first counts, for both."""
        with self._database.write() as connection:
            if earlier := _answered(connection, once):
                return earlier
            _remember(connection, once, answer)
        return answer

    def job(self, job_id: str) -> Job | None:
        with self._database.read() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().one_or_none()
        return None if row is None else _job(row)

    def requeue(self, run: Run, submitter: str, bounds: Bounds, reason: str) -> bool:
        """Puts a run that is not under way into the queue (again). False where it is queued or running already.

        A run that was started elsewhere (`cudaforge optimize`) becomes a job of `submitter`. Raises LimitError, and
        ConflictError where it is just being stopped.
        """
        with self._database.write() as connection:
            row = connection.execute(select(JOBS.c.state, JOBS.c.cancel).where(JOBS.c.id == run.id)).one_or_none()
            found = row.state if row else None
            if row and row.cancel and found == JobState.RUNNING.value:
                raise ConflictError(f"Run {run.id} is being stopped.", "Resume it once it has.")
            if found in (JobState.QUEUED.value, JobState.RUNNING.value):
                return False
            if found != JobState.WAITING.value:
                _check_room(connection, submitter, bounds)
            if found is None:
                new = {"id": run.id, "kind": "run", "submitter": submitter}
                connection.execute(
                    insert(JOBS).values(**new, state=JobState.QUEUED.value, deliveries=0, cancel=False, served="")
                )
            _set_queued(connection, run.id, reason)
        return True

    def reply(self, run_id: str, text: str, key: str | None = None) -> Call:
        """Stores a person's reply to the prompt that a run waits at. A run of a service goes back into the queue.

        `key`: of the call that is answered, where it must be that one. Raises ConflictError where the run waits for no
        reply or for another one, or has it already; of two replies at the same time the first counts.
        """
        with self._database.write() as connection:
            return self._reply(connection, run_id, text, key)

    def reply_once(
        self, run_id: str, text: str, key: str | None, once: Once | None, answer: Callable[[Call], Answer]
    ) -> Answer:
        """The same, with what the request is answered, in one transaction: sent again, it answers no later prompt."""
        with self._database.write() as connection:
            if once and (earlier := _answered(connection, once)):
                return earlier
            made = answer(self._reply(connection, run_id, text, key))
            if once:
                _remember(connection, once, made)
            return made

    def _reply(self, connection: Connection, run_id: str, text: str, key: str | None) -> Call:
        run = _run(connection, run_id)
        body = None
        if run is not None and run.state is RunState.SUSPENDED and run.waiting_for:
            query = select(CALLS.c.body).where(CALLS.c.key == run.waiting_for)
            body = connection.execute(query).scalar_one_or_none()
        if body is None:
            raise ConflictError(f"Run {run_id} waits for no reply.", "`cudaforge pending` lists the runs that do.")
        call = decode(Call, body, f"Call of {run_id}")
        if key is not None and key != call.key:
            raise ConflictError(f"Run {run_id} waits for a reply to {call.key}, not to {key}.", "Read the prompt.")
        if call.reply is not None:
            raise ConflictError(f"{call.key} has its reply already.", f"Go on with `cudaforge resume {run_id}`.")
        answered = {
            "reply": text,
            "state": CallState.DONE,
            "usage": Usage(usd=0.0),
            "latency_s": max(0.0, (now() - call.started).total_seconds()),
        }
        call = call.model_copy(update=answered)
        connection.execute(update(CALLS).where(CALLS.c.key == call.key).values(call_values(call)))
        state = connection.execute(select(JOBS.c.state).where(JOBS.c.id == run_id)).scalar_one_or_none()
        if state == JobState.WAITING.value:
            _set_queued(connection, run_id, "answered")
        return call

    def cancel(self, job_id: str) -> bool:
        """Stops a job: at once where no worker has it, else its worker is told. False where it has ended."""
        with self._database.write() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().one_or_none()
            if row is None or row["state"] == JobState.ENDED.value:
                return False
            if row["state"] == JobState.RUNNING.value:
                connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancel=True))
                return True
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(state=JobState.ENDED.value, cancel=False))
            if row["kind"] == "run":
                _end_run(connection, job_id, RunState.STOPPED, "cancelled before a worker had it")
            else:
                _change_single(connection, job_id, state=SingleState.STOPPED)
        return True

    # -- single evaluations ------------------------------------------------------------------------------------

    def single(self, evaluation_id: str) -> SingleEvaluation | None:
        with self._database.read() as connection:
            return _single(connection, evaluation_id)

    def save_single(self, single: SingleEvaluation) -> None:
        """Replaces one by its id."""
        with self._database.write() as connection:
            connection.execute(update(SINGLES).where(SINGLES.c.id == single.id).values(single_values(single)))

    # -- working -----------------------------------------------------------------------------------------------

    @contextmanager
    def work(self, info: WorkerInfo) -> Iterator[None]:
        """A worker's time: while it is inside, its jobs are its own. Its record goes when it leaves."""
        self._workers.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._lock_file(info.id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.beat(info)
            yield
            with self._database.write() as connection:
                connection.execute(delete(WORKERS).where(WORKERS.c.id == info.id))
            self._lock_file(info.id).unlink(missing_ok=True)
        finally:
            os.close(handle)

    def beat(self, info: WorkerInfo) -> None:
        """Says that a worker lives; others learn from it when it was last heard of."""
        values = {**info.model_dump(), "started": stamp(info.started), "seen": stamp(now())}
        statement = insert(WORKERS).values(values)
        changed = {name: statement.excluded[name] for name in ("slots", "seen", "draining")}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))

    def workers(self) -> list[WorkerInfo]:
        """Those that live."""
        with self._database.read() as connection:
            rows = connection.execute(select(WORKERS).order_by(WORKERS.c.started)).mappings().all()
        return [
            WorkerInfo.model_validate({**row, "started": moment(row["started"]), "seen": moment(row["seen"])})
            for row in rows
            if self._lives(row["id"])
        ]

    def release(self) -> list[str]:
        """Gives jobs of workers that have died back to the queue, and returns the ids of those given up for good."""
        with self._database.read() as connection:
            names = set(connection.execute(select(WORKERS.c.id)).scalars())
            query = select(JOBS.c.worker).where(JOBS.c.state == JobState.RUNNING.value).distinct()
            names |= set(connection.execute(query).scalars())
        dead = [name for name in names if name is not None and not self._lives(name)]
        given_up: list[str] = []
        for name in dead:
            with self._database.write() as connection:
                held = and_(JOBS.c.state == JobState.RUNNING.value, JOBS.c.worker == name)
                for row in connection.execute(select(JOBS).where(held)).mappings().all():
                    given_up += _take_back(connection, row)
                connection.execute(delete(WORKERS).where(WORKERS.c.id == name))
            self._lock_file(name).unlink(missing_ok=True)
        return given_up

    def recover(self, worker: str, at_work: Collection[str]) -> None:
        """Takes back jobs that a live worker has lost hold of: the database failed just when it let go of them."""
        held = and_(JOBS.c.state == JobState.RUNNING.value, JOBS.c.worker == worker, JOBS.c.id.not_in(list(at_work)))
        with self._database.read() as connection:
            if connection.execute(select(JOBS.c.id).where(held)).first() is None:
                return
        with self._database.write() as connection:
            for row in connection.execute(select(JOBS).where(held)).mappings().all():
                _take_back(connection, row)

    def claim(self, worker: str) -> Job | None:
        """The next job, now this worker's: of the submitter with the fewest at work, then of who waited longest."""
        first = (
            select(JOBS.c.submitter, func.min(JOBS.c.seq).label("seq"))
            .where(JOBS.c.state == JobState.QUEUED.value)
            .group_by(JOBS.c.submitter)
            .subquery()
        )
        at_work = (
            select(func.count())
            .where(JOBS.c.state == JobState.RUNNING.value, JOBS.c.submitter == first.c.submitter)
            .scalar_subquery()
        )
        served = select(func.max(JOBS.c.served)).where(JOBS.c.submitter == first.c.submitter).scalar_subquery()
        query = select(first.c.seq).order_by(at_work, served, first.c.seq).limit(1)
        with self._database.read() as connection:  # without the write lock, which an idle worker must not take
            if connection.execute(query).one_or_none() is None:
                return None
        with self._database.write() as connection:
            seq = connection.execute(query).scalar_one_or_none()
            if seq is None:
                return None
            taken = {"state": JobState.RUNNING.value, "worker": worker, "served": stamp(now())}
            statement = update(JOBS).where(JOBS.c.seq == seq).values(**taken, deliveries=JOBS.c.deliveries + 1)
            row = connection.execute(statement.returning(*JOBS.c)).mappings().one()
            if row["kind"] == "evaluation":
                _change_single(connection, row["id"], state=SingleState.RUNNING)
        return _job(row)

    def cancelled(self, worker: str) -> set[str]:
        """Jobs of this worker that somebody wants stopped."""
        query = select(JOBS.c.id).where(
            JOBS.c.state == JobState.RUNNING.value, JOBS.c.worker == worker, JOBS.c.cancel.is_(True)
        )
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def leave(self, job_id: str, worker: str) -> None:
        """A worker has done with a job: what becomes of it follows from where its run or evaluation stands.

        Done, stopped and failed end it. A run that waits for a reply waits; one whose reply came meanwhile, and one
        that was given back (`queued`), goes back into the queue.
        """
        with self._database.write() as connection:
            mine = and_(JOBS.c.id == job_id, JOBS.c.worker == worker, JOBS.c.state == JobState.RUNNING.value)
            row = connection.execute(select(JOBS.c.kind, JOBS.c.cancel).where(mine)).one_or_none()
            if row is None:
                return
            if row.kind == "run":
                state = _run_rests(connection, job_id, cancelled=row.cancel)
            else:
                single = _single(connection, job_id)
                waits = single is not None and single.state is SingleState.QUEUED
                if waits and row.cancel:
                    _change_single(connection, job_id, state=SingleState.STOPPED)
                    waits = False
                state = JobState.QUEUED if waits else JobState.ENDED
            left = {"state": state.value, "worker": None, "deliveries": 0, "cancel": False}
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(left))

    def let_go(self, job_id: str, worker: str) -> None:
        """Ends a job without touching its run, which another process drives."""
        mine = and_(JOBS.c.id == job_id, JOBS.c.worker == worker, JOBS.c.state == JobState.RUNNING.value)
        ended = {"state": JobState.ENDED.value, "worker": None, "deliveries": 0, "cancel": False}
        with self._database.write() as connection:
            connection.execute(update(JOBS).where(mine).values(ended))

    def counts(self) -> dict[str, int]:
        """Jobs by state, ended ones left out."""
        query = select(JOBS.c.state, func.count()).where(JOBS.c.state.in_(ACTIVE)).group_by(JOBS.c.state)
        with self._database.read() as connection:
            found = {state: int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in ACTIVE}

    # -- within ------------------------------------------------------------------------------------------------

    def _lock_file(self, worker: str) -> Path:
        return self._workers / f"{worker}.lock"

    def _lives(self, worker: str) -> bool:
        """Whether the process holds its file. A worker that is just starting has made its file before its record."""
        try:
            handle = os.open(self._lock_file(worker), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self._lock_file(worker)} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def _check_room(connection: Connection, submitter: str, bounds: Bounds) -> None:
    count = select(func.count())
    mine = count.where(JOBS.c.state.in_(ACTIVE), JOBS.c.submitter == submitter)
    if connection.execute(mine).scalar_one() >= bounds.active:
        raise LimitError(
            f"You have {bounds.active} runs and evaluations under way, and that is the most.",
            "Wait until some have ended, or cancel some.",
        )
    if connection.execute(count.where(JOBS.c.state == JobState.QUEUED.value)).scalar_one() >= bounds.queued:
        raise LimitError(f"The queue is full: {bounds.queued} jobs wait for a worker.", "Try again later.")


def _answered(connection: Connection, once: Once) -> Answer | None:
    query = select(ANSWERS).where(ANSWERS.c.submitter == once.submitter, ANSWERS.c.key == once.key)
    row = connection.execute(query).mappings().one_or_none()
    if row is None or moment(row["created"]) < now() - ANSWERS_KEPT:
        return None
    if row["fingerprint"] != once.fingerprint:
        raise KeyReuseError(
            "This Idempotency-Key came with another request before.", "Use a new key for a new request."
        )
    return Answer(status=row["status"], body=row["body"], location=row["location"], replayed=True)


def _remember(connection: Connection, once: Once, answer: Answer) -> None:
    connection.execute(delete(ANSWERS).where(ANSWERS.c.created < stamp(now() - ANSWERS_KEPT)))
    values = {**once.model_dump(), **answer.model_dump(exclude={"replayed"}), "created": stamp(now())}
    connection.execute(insert(ANSWERS).values(values))


def _set_queued(connection: Connection, run_id: str, reason: str) -> None:
    queued = {"state": JobState.QUEUED.value, "worker": None, "deliveries": 0, "cancel": False}
    connection.execute(update(JOBS).where(JOBS.c.id == run_id).values(queued))
    _change_run(connection, run_id, state=RunState.QUEUED, error="")
    connection.execute(insert(EVENTS).values(event_values(RunQueued(run_id=run_id, reason=reason))))


def _run_rests(connection: Connection, run_id: str, *, cancelled: bool) -> JobState:
    """What becomes of a run's job once its worker has let go of it."""
    run = _run(connection, run_id)
    if run is None or run.state in (RunState.DONE, RunState.STOPPED, RunState.FAILED):
        return JobState.ENDED
    if cancelled:  # it came to rest of itself before its worker saw the wish
        _end_run(connection, run_id, RunState.STOPPED, "cancelled")
        return JobState.ENDED
    if run.state is RunState.SUSPENDED:
        answered = select(CALLS.c.answered).where(CALLS.c.key == run.waiting_for)
        if not connection.execute(answered).scalar_one_or_none():
            return JobState.WAITING
    _set_queued(connection, run_id, "answered" if run.state is RunState.SUSPENDED else "given back by its worker")
    return JobState.QUEUED


def _take_back(connection: Connection, row: Any) -> list[str]:
    """A dead worker's job: cancelled, queued again, or given up, which returns its id."""
    job_id, is_run = row["id"], row["kind"] == "run"
    ended = {"state": JobState.ENDED.value, "worker": None, "cancel": False}
    run = _run(connection, job_id) if is_run else None
    if run is not None and run.state in (RunState.DONE, RunState.STOPPED, RunState.FAILED):
        connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(ended))
        _say_the_end(connection, run)
        return []
    if row["cancel"] or row["deliveries"] >= MAX_DELIVERIES:
        connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(ended))
        error = "" if row["cancel"] else f"Its worker died {row['deliveries']} times while it had this."
        if is_run:
            _end_run(connection, job_id, RunState.FAILED if error else RunState.STOPPED, error or "cancelled", error)
        else:
            _change_single(connection, job_id, state=SingleState.FAILED if error else SingleState.STOPPED, error=error)
        return [job_id] if error else []
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(state=JobState.QUEUED.value, worker=None))
    if is_run:
        _change_run(connection, job_id, state=RunState.QUEUED)
        event = RunQueued(run_id=job_id, reason="its worker died")
        connection.execute(insert(EVENTS).values(event_values(event)))
    else:
        _change_single(connection, job_id, state=SingleState.QUEUED)
    return []


def _say_the_end(connection: Connection, run: Run) -> None:
    """State and last event are two commits of the worker: it may have died between them."""
    newest = select(EVENTS.c.type).where(EVENTS.c.run_id == run.id).order_by(EVENTS.c.id.desc()).limit(1)
    if connection.execute(newest).scalar_one_or_none() != "run_finished":
        found = run.outcome or Outcome(reason=run.error or run.state.value)
        event = RunFinished(run_id=run.id, state=run.state, win=found.win, reason=found.reason, speedup=found.speedup)
        connection.execute(insert(EVENTS).values(event_values(event)))


def _run(connection: Connection, run_id: str) -> Run | None:
    body = connection.execute(select(RUNS.c.body).where(RUNS.c.id == run_id)).scalar_one_or_none()
    return None if body is None else decode(Run, body, f"Run {run_id}")


def _change_run(connection: Connection, run_id: str, **changes: Any) -> None:
    run = _run(connection, run_id)
    if run is not None:
        changed = run.model_copy(update={**changes, "updated": now()})
        connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(run_values(changed)))


def _end_run(connection: Connection, run_id: str, state: RunState, reason: str, error: str = "") -> None:
    _change_run(connection, run_id, state=state, waiting_for="", error=error)
    event = RunFinished(run_id=run_id, state=state, reason=reason)
    connection.execute(insert(EVENTS).values(event_values(event)))


def _single(connection: Connection, evaluation_id: str) -> SingleEvaluation | None:
    body = connection.execute(select(SINGLES.c.body).where(SINGLES.c.id == evaluation_id)).scalar_one_or_none()
    return None if body is None else decode(SingleEvaluation, body, f"Evaluation {evaluation_id}")


def _change_single(connection: Connection, evaluation_id: str, **changes: Any) -> None:
    single = _single(connection, evaluation_id)
    if single is not None:
        changed = single.model_copy(update={**changes, "updated": now()})
        connection.execute(update(SINGLES).where(SINGLES.c.id == evaluation_id).values(single_values(changed)))


def _job(row: Any) -> Job:
    return Job.model_validate({name: row[name] for name in Job.model_fields})
