"""The JSON that `--json` prints, one model per command; docs/cli.md shows an example of each.

These shapes are stable: fields are added, never renamed or removed. `evaluate` prints cudaforge.evaluation's
Evaluation as it is. Missing values are null, never left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cudaforge.evaluation import Evaluation, Speedup, Verdict
from cudaforge.trace import Diagnosis, Message, Plan
from cudaforge_profiling.types import Profile


class Shape(BaseModel):
    """Base of all: unknown fields are a mistake of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """null while the round is under way, and where no reply could be parsed (then `reply_error` says why)."""
    reason: str
    plan: Plan | None
    """The Judge's advice that this round's kernel was written to."""
    diagnosis: Diagnosis | None
    kernel: str | None
    time_us: float | None
    speedup: Speedup | None
    """As screened; only a run's own `speedup` is verified."""
    predicted_gain: float | None
    measured_gain: float | None
    reply_error: str


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
