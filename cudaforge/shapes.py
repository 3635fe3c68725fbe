"""What the doors show: the JSON that `--json` prints and that the service answers with.

These shapes are stable: fields are added, never renamed or removed. `evaluate` prints cudaforge.evaluation's
Evaluation as it is. Missing values are null, never left out. docs/cli.md shows an example of each of the commands'.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cudaforge.evaluation import Evaluation, Interval, Speedup, Verdict
from cudaforge.jobs import Scope, SingleState
from cudaforge.trace import Diagnosis, Message, Plan, RunState
from cudaforge_profiling.types import Profile


class Shape(BaseModel):
    """Base of all: unknown fields are a mistake of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def to_json(shape: BaseModel, indent: int | None = None) -> str:
    """A shape as ASCII JSON, with null for numbers that JSON cannot say.

    Not model_dump_json: sources and outputs are untrusted text, and it refuses lone surrogates. In ASCII they and
    everything else pass through any terminal, pipe and browser.
    """
    separators = None if indent else (",", ":")
    return json.dumps(_finite(shape.model_dump(mode="json")), indent=indent, separators=separators, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ErrorOutput(Shape):
    """What any command prints instead of its own shape when it fails."""

    error: str
    hint: str
    exit_code: int


class Tokens(Shape):
    """Tokens over all calls of a run."""

    input: int = 0
    output: int = 0
    cached: int = 0


class BaselineOutput(Shape):
    """The reference on the run's device, microseconds."""

    eager_us: float
    compile_us: float | None
    floor_us: float | None


class AttemptOutput(Shape):
    """One round."""

    id: str
    round: int
    action: str
    base: str | None
    verdict: Verdict | None
    """null while the round is under way, where no reply could be parsed (then `reply_error` says why), and where it
    was taken back before it was evaluated (`withdrawn`)."""
    reason: str
    plan: Plan | None
    """The Judge's advice that this round's kernel was written to."""
    diagnosis: Diagnosis | None
    hint: str
    """What a person asked the Coder for, in a session; empty for none."""
    kernel: str | None
    time_us: float | None
    speedup: Speedup | None
    """As screened; only a run's own `speedup` is verified."""
    predicted_gain: float | None
    measured_gain: float | None
    reply_error: str
    withdrawn: bool
    """A session's user took it back before it was evaluated."""


class BestOutput(Shape):
    """The attempt that a run keeps: the verified one, else the fastest that passed so far."""

    attempt: str
    round: int
    kernel: str
    time_us: float | None
    speedup: Speedup | None
    verified: bool


class CallOutput(Shape):
    """One question to a model, exactly as sent and answered."""

    key: str
    attempt: str
    role: str
    purpose: str
    model: str
    state: str
    messages: tuple[Message, ...]
    reply: str | None
    error: str
    tokens: Tokens
    cost_usd: float | None
    latency_s: float


class RunOutput(Shape):
    """`optimize`, `demo`, `resume`, `show`."""

    id: str
    state: str
    task: str
    task_id: str
    language: str
    coder: str
    judge: str
    evaluator: str
    preset: str
    device: str | None
    created: datetime
    updated: datetime
    waiting_for: str
    error: str
    rounds: int
    """The budget; `attempts` holds those that were begun."""
    baseline: BaselineOutput | None
    attempts: tuple[AttemptOutput, ...]
    best: BestOutput | None
    win: bool
    reason: str
    """Why the run ended."""
    speedup: Speedup | None
    """Verified; null where no win was found."""
    share_of_floor: float | None
    cost_usd: float | None
    """null where the price of a call is not known."""
    tokens: Tokens
    stages_s: dict[str, float]
    branched_from: str | None
    """The attempt of another run that this one, a session's branch, began with."""
    kernel_folder: str | None
    """Where `optimize`, `demo` and `resume` wrote the kernel; null for `show`."""
    calls: tuple[CallOutput, ...] | None
    """null without `--prompts`."""


class RoundOutput(Shape):
    """`show RUN --round N`."""

    run: str
    attempt: AttemptOutput
    files: dict[str, str]
    diff: str
    """Unified diff against the kernel of `attempt.base`; empty for a draft."""
    evaluation: Evaluation | None
    profile: Profile | None
    calls: tuple[CallOutput, ...] | None


class ExportOutput(Shape):
    """`show RUN --html FILE`."""

    run: str
    file: str
    bytes: int


class RunRow(Shape):
    """One run in `runs`."""

    id: str
    state: str
    task: str
    language: str
    coder: str
    judge: str
    device: str | None
    rounds: int
    """Rounds begun."""
    win: bool
    speedup: Speedup | None
    """Verified."""
    created: datetime


class RunsOutput(Shape):
    """`runs`, newest first."""

    runs: tuple[RunRow, ...]


class Spent(Shape):
    """What the model calls of a run have cost so far."""

    calls: int = 0
    uncertain_calls: int = 0
    """Cut off in flight and booked at their worst; their tokens and price are in the sums."""
    unpriced_calls: int = 0
    """Done or uncertain, at a price that is not known."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd_known: float = 0.0
    """Sum over the calls whose price is known."""

    @property
    def tokens(self) -> int:
        """Input and output; cached ones are among the input."""
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> float | None:
        """US dollars, or None where a call's price is not known."""
        return None if self.unpriced_calls else self.usd_known


class Summary(Shape):
    """Totals of one run."""

    run_id: str
    spent: Spent
    stages_s: dict[str, float]
    """Wall seconds per finished stage: baseline, coder, judge, evaluate, profile, verify."""
    attempts: int
    events: int


class RunLine(Shape):
    """A run as a list shows it; `RunOutput` is the whole."""

    id: str
    state: RunState
    created: datetime
    updated: datetime
    task: str
    """Task id."""
    task_name: str
    language: str
    coder: str
    judge: str
    evaluator: str
    preset: str
    device: str | None
    waiting_for: str
    error: str
    win: bool | None
    """None while the run has no outcome."""
    best: str | None
    kernel: str | None
    speedup: Interval | None
    """Verified, over eager."""
    speedup_compile: float | None
    attempts: int
    submitter: str | None = None
    """Id of the token that submitted it, `local`, or None for a run of the command line."""
    spent: Spent


class RunFilter(Shape):
    """Which runs a list shows; None and "" are no condition."""

    state: RunState | None = None
    task: str | None = None
    """Name or id."""
    language: str | None = None
    model: str | None = None
    """Coder or Judge."""
    device: str | None = None
    submitter: str | None = None
    """Id of the token, or `local`."""
    text: str = ""
    """Part of the task's name, of a model's name or of the run's id; case does not count."""


RunSort = Literal["created", "task", "model", "device", "state", "rounds", "speedup", "compile", "cost", "time"]


class RoundPoint(Shape):
    """A round as a sparkline needs it."""

    round: int
    verdict: Verdict | None
    speedup: float | None
    """Screened, over eager."""


class RunGlance(Shape):
    """What a list draws of a run beside its RunLine."""

    budget_rounds: int
    points: tuple[RoundPoint, ...]
    compile: Interval | None
    """Verified, over torch.compile."""
    seconds: float
    """Wall time of its finished stages: what it worked, without the time that it waited for a person."""


class RunCounts(Shape):
    """Over all runs of a home."""

    states: dict[RunState, int]
    usd_today: float
    """Known prices of the calls that were started since midnight, UTC."""
    unpriced_today: int

    def of(self, *states: RunState) -> int:
        """How many runs are in one of these states."""
        return sum(self.states.get(state, 0) for state in states)


class TaskLine(Shape):
    """A task that a service knows, as a list shows it."""

    id: str
    name: str
    submitter: str
    created: datetime


class EvaluationLine(Shape):
    """A kernel measured without a run, as a list shows it."""

    id: str
    state: SingleState
    task: str
    task_name: str
    kernel: str
    verdict: Verdict | None
    created: datetime
    updated: datetime


class DeviceLine(Shape):
    """A device on which something was measured."""

    name: str
    results: int
    last_used: datetime


class PendingItem(Shape):
    """What one suspended run waits for."""

    run: str
    task: str
    kind: Literal["reply", "evaluation"]
    key: str
    role: str | None
    purpose: str | None
    since: datetime
    messages: tuple[Message, ...]
    """The prompt to answer; empty for an evaluation."""


class PendingOutput(Shape):
    """`pending`."""

    pending: tuple[PendingItem, ...]


class ReplyOutput(Shape):
    """`reply`."""

    run: str
    key: str
    role: str
    characters: int


class ProfileOutput(Shape):
    """`profile`: the screening, and where it passed the profile."""

    evaluation: Evaluation
    profile: Profile | None
    """Without the raw report, which `profile --report FILE` writes."""


class EvaluatorOutput(Shape):
    """`evaluator`, once it ends."""

    spool: str
    drained: bool
    """False where a signal ended it."""


class TokenOutput(Shape):
    """`token revoke`, and a line of `token list`; the secret is nowhere."""

    id: str
    name: str
    scope: Scope
    max_active: int | None
    created: datetime
    last_used: datetime | None
    """To the minute."""
    revoked: datetime | None


class TokensOutput(Shape):
    """`token list`, oldest first."""

    tokens: tuple[TokenOutput, ...]


class NewTokenOutput(Shape):
    """`token create`."""

    id: str
    name: str
    scope: Scope
    token: str
    """What to send as `Authorization: Bearer`; shown this once."""


class ServeOutput(Shape):
    """`serve`, once it listens."""

    url: str
    home: str
    workers: int
    token_required: bool


class ViewOutput(Shape):
    """`view`, once it listens."""

    url: str
    """Of the page."""
    home: str


class WorkerOutput(Shape):
    """`worker`, once it ends."""

    id: str
    jobs: int
    """That it has carried out, to wherever they came to rest."""


class PackOutput(Shape):
    """`pack`."""

    output: str
    runs: int
    artifacts: int
    bytes: int
    """Before compression."""
    missing: tuple[str, ...]
    """Artefacts that were lost or damaged, and so are not in the pack."""


class GcOutput(Shape):
    """`gc`."""

    dry_run: bool
    reports: int
    builds: int
    leftovers: int
    bytes: int


class Check(Shape):
    """One thing that `doctor` looked at."""

    name: str
    status: Literal["ok", "warn", "missing"]
    detail: str
    hint: str
    """What to do about it; empty where ok."""


class DoctorOutput(Shape):
    """`doctor`."""

    ready: bool
    """Everything that a C++ run on the CPU needs is here."""
    checks: tuple[Check, ...]
