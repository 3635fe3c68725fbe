"""What a service keeps beside runs: who may ask, what waits for a worker, and kernels measured without a run.

Ids: a single evaluation is `e` + 10 characters, a token's public part `c` + 10.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from cudaforge.evaluation import EvaluateOptions, Evaluation
from cudaforge.kernel import Kernel
from cudaforge.task import Task
from cudaforge.trace import now
from cudaforge_profiling.types import Frozen, Profile

LOCAL = "local"
"""The submitter of what is asked for without a token, over loopback."""
MAX_DELIVERIES = 5
"""A job whose worker died that often is given up: what kills workers must not do so for ever."""


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    SUBMIT = "submit"
    """Create runs and evaluations; cancel, resume and answer one's own. Includes `read`."""
    ADMIN = "admin"
    """The same for everybody's, and see queue and workers. Includes `submit`."""

    def covers(self, other: Scope) -> bool:
        """Whether who has this scope may do what asks for the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Token(Frozen):
    """A bearer token as it is kept: never its secret, of which the database holds a hash."""

    id: str
    name: str
    scope: Scope
    max_active: int | None = Field(None, ge=1)
    """Runs and evaluations of this token that are queued, running or waiting, at most; None: the service's limit."""
    created: datetime = Field(default_factory=now)
    last_used: datetime | None = None
    """To the minute."""
    revoked: datetime | None = None


class JobState(StrEnum):
    """Where a job stands in the queue."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """A run that waits for a reply to a prompt; no worker has it."""
    ENDED = "ended"


class Job(Frozen):
    """A run or a single evaluation on its way through the queue; `id` is its own."""

    id: str
    kind: Literal["run", "evaluation"]
    submitter: str
    state: JobState
    worker: str | None = None
    deliveries: int = 0
    """How often a worker has begun with it since it was last put into the queue."""
    cancel: bool = False


class SingleState(StrEnum):
    """Where a single evaluation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Cancelled."""
    FAILED = "failed"
    """An infrastructure failure; says nothing about the kernel."""


class SingleEvaluation(Frozen):
    """One kernel measured against one task, without a run."""

    id: str
    task: Task
    kernel: Kernel
    evaluator: str
    options: EvaluateOptions = EvaluateOptions()
    metrics: str | None = None
    """Metric set of the profile that a passing kernel gets; None for no profile."""
    state: SingleState = SingleState.QUEUED
    error: str = ""
    evaluation: Evaluation | None = None
    profile: Profile | None = None
    """Without its report, which is `report`."""
    report: str | None = None
    """Digest of the profile's report file (.ncu-rep) among the artefacts."""
    created: datetime = Field(default_factory=now)
    updated: datetime = Field(default_factory=now)


class Bounds(Frozen):
    """How much a queue takes."""

    queued: int = Field(1000, ge=1)
    """Jobs that wait for a worker, of all submitters."""
    active: int = Field(100, ge=1)
    """Jobs of one submitter that are queued, running or waiting."""


class Once(Frozen):
    """A request that is to be carried out once, however often it is sent (Idempotency-Key)."""

    submitter: str
    key: str
    fingerprint: str
    """Hash of what was asked: the same key with something else is a mistake."""


class Answer(Frozen):
    """What a request that created something was answered with."""

    status: int
    body: str
    """JSON."""
    location: str
    replayed: bool = False


class WorkerInfo(Frozen):
    """A worker process as it last said so."""

    id: str
    pid: int
    slots: int
    started: datetime
    seen: datetime
    """Of its last heartbeat."""
    draining: bool = False
