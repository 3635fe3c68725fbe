"""Run, Attempt, Plan, Budget, Event: what is remembered of an optimisation.

Ids: a run is `r` + 10 characters, an attempt `RUN.ROUND` (`r3f9....2`), a call of a model or evaluator
`ATTEMPT/ROLE/ORDINAL` (`r3f9....2/coder/0`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from cudaforge.displayed import Displayed
from cudaforge.evaluation import EvaluateOptions, Speedup, Verdict
from cudaforge.kernel import Language
from cudaforge.task import Task
from cudaforge_profiling.types import Device, Frozen


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Role(StrEnum):
    """Who is asked."""

    CODER = "coder"
    JUDGE = "judge"


class Action(StrEnum):
    """How a round's kernel comes about."""

    DRAFT = "draft"
    REPAIR = "repair"
    REVISE = "revise"
    EDIT = "edit"
    """A person wrote it, in a session."""


class RunState(StrEnum):
    """Where a run stands. All but `done` can be resumed into more rounds."""

    QUEUED = "queued"
    """Submitted to a service; waits for a worker."""
    RUNNING = "running"
    SUSPENDED = "suspended"
    """Waits for a reply or a spooled evaluation."""
    DONE = "done"
    STOPPED = "stopped"
    """Cancelled by the user; resumable."""
    FAILED = "failed"
    """An infrastructure failure; resumable once it is mended."""


class Budget(Frozen):
    """When to stop. None is no limit."""

    rounds: int = Field(10, ge=1, le=1000)
    usd: float | None = Field(None, gt=0)
    seconds: float | None = Field(None, gt=0)
    target_speedup: float | None = Field(None, gt=0)
    """Stop when a screening over eager reaches it."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many rounds without a better kernel."""


class Preset(Frozen):
    """What the loop does and what the agents see; `PRESETS` holds the named ones."""

    name: str = "default"
    base: Literal["best", "last"] = "best"
    """What the next revision starts from: the best passing kernel, or always the newest (the paper)."""
    metrics: str = "core"
    show_reference: bool = True
    """Coder and Judge see the reference on every call, not only on the first."""
    show_numbers: bool = True
    """They see time, speedups and the floor."""
    history: int = Field(6, ge=0)
    """How many earlier attempts are summed up for them; 0 for none."""
    correction: bool = True
    """The Judge reads failures; False: the Coder repairs from the raw error alone."""
    optimization: bool = True
    """Passing kernels are profiled and revised; False: stop at the first that passes."""
    self_refine: bool = False
    """One model plays both roles, in one call."""

    def changed(self, **changes: Any) -> Preset:
        """The preset with some fields changed; its name says which. A value of None changes nothing."""
        made = {name: value for name, value in changes.items() if value is not None}
        name = self.name + "".join(f" {key}={value}" for key, value in sorted(made.items()))
        return self.model_copy(update={**made, "name": name}) if made else self


PRESETS: dict[str, Preset] = {
    "default": Preset(),
    "paper": Preset(name="paper", base="last", metrics="paper", show_reference=False, show_numbers=False, history=0),
}


class RunSpec(Frozen):
    """Everything a run is made of; stored once, at its start."""

    task: Task
    language: Language
    coder: str
    judge: str
    evaluator: str = "local"
    budget: Budget = Budget()
    preset: Preset = Preset()
    options: EvaluateOptions = EvaluateOptions()
    model_settings: dict[str, Any] = {}


class Usage(Frozen):
    """Tokens and price of model calls. `usd` is None where the price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = None
    estimated: bool = False
    """Counted by us, at least in part, because the server did not say."""


def total_usage(usages: Iterable[Usage]) -> Usage:
    """The sum. Unknown prices do not count; `usd` is None where none is known."""
    listed = list(usages)
    known = [u.usd for u in listed if u.usd is not None]
    return Usage(
        input_tokens=sum(u.input_tokens for u in listed),
        output_tokens=sum(u.output_tokens for u in listed),
        cached_tokens=sum(u.cached_tokens for u in listed),
        usd=sum(known) if known else None,
        estimated=any(u.estimated for u in listed),
    )


class Diagnosis(Displayed, Frozen):
    """What the Judge says of a kernel that failed."""

    critical_issue: str
    why_it_matters: str
    minimal_fix_hint: str


class Evidence(Frozen):
    """One fact that a plan rests on, as the Judge cited it."""

    metric: str
    value: str


class Plan(Displayed, Frozen):
    """What the Judge says of a kernel that passed: what limits it and what to change."""

    bottleneck: str
    evidence: tuple[Evidence, ...] = ()
    method: str
    steps: tuple[str, ...]
    predicted_gain: float | None = Field(None, gt=0, le=1000)
    """Expected time before / time after."""


class Attempt(Displayed, Frozen):
    """One round: advice -> kernel -> evaluation -> profile. Evaluations and profiles are stored under their key."""

    id: str
    run_id: str
    round: int
    action: Action
    base: str | None = None
    """The attempt that this one was made from."""
    advice: Diagnosis | Plan | None = None
    kernel: str | None = None
    """Kernel id; None where no reply could be parsed."""
    hint: str = ""
    """What a person asked the Coder for, in a session."""
    reply_error: str = ""
    evaluation: str | None = None
    """Key of the stored evaluation."""
    profile: str | None = None
    verdict: Verdict | None = None
    reason: str = ""
    speedup: Speedup | None = None
    time_us: float | None = None
    predicted_gain: float | None = None
    measured_gain: float | None = None
    """Speedup over eager of this one / that of the base."""
    started: datetime = Field(default_factory=now)
    finished: datetime | None = None

    @property
    def passed(self) -> bool:
        """Whether the kernel passed its screening."""
        return self.verdict is Verdict.PASSED

    @property
    def withdrawn(self) -> bool:
        """Whether a session's user took it back before it was evaluated: it has no verdict and no fault."""
        return self.finished is not None and self.verdict is None and not self.reply_error


class Outcome(Frozen):
    """How a run ended."""

    best: str | None = None
    """The attempt whose kernel was verified; None where no win was found."""
    kernel: str | None = None
    win: bool = False
    verification: str | None = None
    """Key of the stored verification."""
    speedup: Speedup | None = None
    reason: str = ""
    """Why it stopped: `10 rounds spent`, `target 2.0x reached`."""


class Run(Displayed, Frozen):
    """A task, a budget, models, a policy, and where it stands."""

    id: str
    spec: RunSpec
    state: RunState = RunState.RUNNING
    device: Device | None = None
    waiting_for: str = ""
    """Key of the call or evaluation that a suspended run waits for."""
    error: str = ""
    outcome: Outcome | None = None
    head: str | None = None
    """A session's: the attempt that is built on next, "" for none. None where the search policy alone decides."""
    branched_from: str | None = None
    """The attempt of another run that this one began as a copy of."""
    created: datetime = Field(default_factory=now)
    updated: datetime = Field(default_factory=now)


class Message(Frozen):
    """One message of a conversation with a model."""

    role: Literal["system", "user", "assistant"]
    content: str


class CallState(StrEnum):
    """Where a model call stands."""

    STARTED = "started"
    WAITING = "waiting"
    """A `manual:` prompt without its reply."""
    DONE = "done"
    UNCERTAIN = "uncertain"
    """Cut off in flight: may have been charged; booked at its worst cost."""
    FAILED = "failed"


class Call(Frozen):
    """One question to a model, with its exact prompt and reply."""

    key: str
    run_id: str
    attempt_id: str
    role: Role
    purpose: Literal["draft", "repair", "revise", "diagnose", "advise", "reask"]
    position: int
    """How many replies this role had given in the run before; what a recording is indexed by."""
    model: str
    messages: tuple[Message, ...]
    state: CallState = CallState.STARTED
    reply: str | None = None
    error: str = ""
    usage: Usage = Usage()
    latency_s: float = 0.0
    started: datetime = Field(default_factory=now)


# -- events: append-only, typed by `type`; live display and replay read the same rows ---------------------------


class _Event(Frozen):
    run_id: str


class RunStarted(_Event):
    type: Literal["run_started"] = "run_started"
    task: str
    language: str
    coder: str
    judge: str
    evaluator: str
    rounds: int


class RunQueued(_Event):
    """Waits for a worker: submitted, resumed, answered, or given back by a worker that was stopped."""

    type: Literal["run_queued"] = "run_queued"
    reason: str = ""


class StageStarted(_Event):
    """A stage of a round has begun: baseline, coder, judge, evaluate, profile, verify."""

    type: Literal["stage_started"] = "stage_started"
    attempt_id: str = ""
    round: int = -1
    stage: str


class StageFinished(_Event):
    type: Literal["stage_finished"] = "stage_finished"
    attempt_id: str = ""
    round: int = -1
    stage: str
    seconds: float
    parts_s: dict[str, float] = {}
    usage: Usage | None = None


class BaselineMeasured(_Event):
    type: Literal["baseline_measured"] = "baseline_measured"
    device: str
    eager_us: float
    compile_us: float | None = None
    floor_us: float | None = None


class AttemptFinished(_Event):
    type: Literal["attempt_finished"] = "attempt_finished"
    attempt_id: str
    round: int
    action: Action
    verdict: Verdict | None
    reason: str = ""
    time_us: float | None = None
    speedup: Speedup | None = None
    best: bool = False


class RunSuspended(_Event):
    type: Literal["run_suspended"] = "run_suspended"
    waiting_for: str
    message: str


class RunResumed(_Event):
    type: Literal["run_resumed"] = "run_resumed"


class RunFinished(_Event):
    type: Literal["run_finished"] = "run_finished"
    state: RunState
    win: bool = False
    reason: str = ""
    speedup: Speedup | None = None


class Note(_Event):
    """Something a reader must know: a retry, a call booked as uncertain, a scaled-down check."""

    type: Literal["note"] = "note"
    level: Literal["info", "warning"] = "info"
    message: str


Event = Annotated[
    RunQueued
    | RunStarted
    | StageStarted
    | StageFinished
    | BaselineMeasured
    | AttemptFinished
    | RunSuspended
    | RunResumed
    | RunFinished
    | Note,
    Field(discriminator="type"),
]


class StoredEvent(Frozen):
    """An event with its place in the one order of all events."""

    id: int
    at: datetime
    event: Event
