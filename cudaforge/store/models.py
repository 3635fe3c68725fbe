"""The tables. Each row holds the whole vocabulary object as JSON in `body`, and beside it, typed, the columns that
lists sort, filter and add up by; those are written from the object and never read back into it.

`body` stands last: SQLite reads a row from its front, so a list that leaves the body out never touches the pages
that long prompts and sources spill into. Times are ISO 8601 text in UTC with microseconds (codec.stamp), which
sorts as time does.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Base(SQLModel, registry=registry()):
    """Metadata of our own: tables that a host application defines with SQLModel are not ours to migrate."""


class RunRow(Base, table=True):
    """One optimisation. Lists go newest first, by (created, id), optionally within one state or task."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_created", "created", "id"),
        Index("ix_runs_state", "state", "created", "id"),
        Index("ix_runs_task_name", "task_name", "created", "id"),
        Index("ix_runs_task", "task", "created", "id"),
    )
    id: str = Field(primary_key=True)
    state: str
    created: str
    updated: str
    task: str
    """Task id; `task_name` is what people call it."""
    task_name: str
    language: str
    coder: str
    judge: str
    evaluator: str
    preset: str
    device: str | None = None
    waiting_for: str = ""
    error: str = ""
    win: bool | None = None
    """None while there is no outcome."""
    best: str | None = None
    kernel: str | None = None
    speedup: float | None = None
    """Verified, over eager, with its 95 % interval."""
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_compile: float | None = None
    body: str = Field(sa_column=Column(Text, nullable=False))


class AttemptRow(Base, table=True):
    """One round."""

    __tablename__ = "attempts"
    __table_args__ = (Index("ix_attempts_run_id", "run_id", "round", "id"), Index("ix_attempts_kernel", "kernel"))
    id: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="runs.id")
    round: int
    action: str
    verdict: str | None = None
    speedup: float | None = None
    """Screened, over eager."""
    time_us: float | None = None
    kernel: str | None = None
    started: str
    finished: str | None = None
    body: str = Field(sa_column=Column(Text, nullable=False))


class KernelRow(Base, table=True):
    """Sources, once per content hash; shared by all runs."""

    __tablename__ = "kernels"
    id: str = Field(primary_key=True)
    language: str
    created: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class CallRow(Base, table=True):
    """One question to a model. `seq` keeps the order of calls that started in the same microsecond."""

    __tablename__ = "calls"
    __table_args__ = (
        Index("ix_calls_key", "key", unique=True),
        Index("ix_calls_run_id", "run_id", "started", "seq"),
        Index("ix_calls_state", "state", "started", "seq"),
        {"sqlite_autoincrement": True},
    )
    seq: int | None = Field(default=None, primary_key=True)
    key: str
    run_id: str = Field(foreign_key="runs.id")
    attempt_id: str
    role: str
    purpose: str
    position: int
    model: str
    state: str
    answered: bool
    """Has a reply; guards against being replaced by a call without one."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    usd: float | None = None
    latency_s: float
    started: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class ResultRow(Base, table=True):
    """What an evaluator found: `kind` names the class that `body` is of."""

    __tablename__ = "results"
    __table_args__ = (Index("ix_results_run_id", "run_id", "created"), Index("ix_results_kernel", "kernel"))
    key: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="runs.id")
    kind: str
    task: str | None = None
    kernel: str | None = None
    device: str
    verdict: str | None = None
    time_us: float | None = None
    speedup: float | None = None
    report: str | None = None
    """A profile's report file: the artefact's digest. It stays when gc has collected the bytes."""
    created: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class EventRow(Base, table=True):
    """Append-only. AUTOINCREMENT: an id is never given twice, and ids are given under the write lock, so they become
    visible in order: "after id N" misses nothing."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_run_id", "run_id", "id"), {"sqlite_autoincrement": True})
    id: int | None = Field(default=None, primary_key=True)
    at: str
    run_id: str = Field(foreign_key="runs.id")
    type: str
    stage: str | None = None
    seconds: float | None = None
    """Of stage_finished, for sums per stage."""
    body: str = Field(sa_column=Column(Text, nullable=False))


class ArtifactRow(Base, table=True):
    """A file under artifacts/. Its bytes are there before its row is."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_kind", "kind", "created"),)
    digest: str = Field(primary_key=True)
    kind: str
    """`blob`, kept for good, or `report`, which gc may collect."""
    size: int
    created: str
    """When it was last put."""
    collected: str | None = None
    """When gc deleted the bytes."""


class TaskRow(Base, table=True):
    """A task that was uploaded or submitted to a service, once per content; runs hold their own copy."""

    __tablename__ = "tasks"
    __table_args__ = (Index("ix_tasks_created", "created", "id"),)
    id: str = Field(primary_key=True)
    name: str
    """As it was first called."""
    submitter: str
    created: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class TokenRow(Base, table=True):
    """A bearer token. Of its secret only the SHA-256 is here: it has 256 random bits, so no salt is needed."""

    __tablename__ = "tokens"
    id: str = Field(primary_key=True)
    name: str
    sha256: str
    scope: str
    max_active: int | None = None
    created: str
    last_used: str | None = None
    revoked: str | None = None


class JobRow(Base, table=True):
    """A run or a single evaluation in the queue. Claims look for the first queued of each submitter."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_id", "id", unique=True),
        Index("ix_jobs_state", "state", "submitter", "seq"),
        Index("ix_jobs_submitter", "submitter", "served"),
        {"sqlite_autoincrement": True},
    )
    seq: int | None = Field(default=None, primary_key=True)
    id: str
    kind: str
    submitter: str
    state: str
    worker: str | None = None
    deliveries: int = 0
    cancel: bool = False
    served: str = ""
    """When a worker last began with it."""


class SingleRow(Base, table=True):
    """A kernel measured without a run."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("ix_evaluations_created", "created", "id"),)
    id: str = Field(primary_key=True)
    state: str
    task: str
    task_name: str
    kernel: str
    verdict: str | None = None
    created: str
    updated: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class WorkerRow(Base, table=True):
    """A worker process that takes jobs. Whether it lives is told by its lock file, not by `seen`."""

    __tablename__ = "workers"
    id: str = Field(primary_key=True)
    pid: int
    slots: int
    started: str
    seen: str
    draining: bool = False


class AnswerRow(Base, table=True):
    """What a request with an Idempotency-Key was answered with."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_created", "created"),)
    submitter: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    status: int
    location: str
    body: str = Field(sa_column=Column(Text, nullable=False))
    created: str


_tables = Base.metadata.tables
RUNS, ATTEMPTS, KERNELS = _tables["runs"], _tables["attempts"], _tables["kernels"]
CALLS, RESULTS, EVENTS, ARTIFACTS = _tables["calls"], _tables["results"], _tables["events"], _tables["artifacts"]
TASKS, TOKENS, JOBS, SINGLES = _tables["tasks"], _tables["tokens"], _tables["jobs"], _tables["evaluations"]
WORKERS, ANSWERS = _tables["workers"], _tables["answers"]
