"""What the store holds of a run, as the shapes that `--json` prints and that the tables are drawn from."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cudaforge.errors import UsageError
from cudaforge.evaluation import Evaluation, Verification, geometric_mean
from cudaforge.kernel import Kernel
from cudaforge.ports import Store
from cudaforge.shapes import (
    AttemptOutput,
    BaselineOutput,
    BestOutput,
    CallOutput,
    PendingItem,
    RoundOutput,
    RunOutput,
    RunRow,
    Tokens,
)
from cudaforge.trace import (
    Attempt,
    BaselineMeasured,
    Call,
    CallState,
    Diagnosis,
    Plan,
    Run,
    StageFinished,
    StoredEvent,
    Usage,
)
from cudaforge_profiling.types import Profile


def all_events(store: Store, run_id: str, after: int = 0) -> Iterator[StoredEvent]:
    """Every event of a run with an id above `after`, however many there are."""
    while batch := store.events(run_id, after=after):
        yield from batch
        after = batch[-1].id


def spent(calls: Iterable[Call]) -> tuple[Tokens, float | None]:
    """Tokens and dollars over calls; dollars are None where the price of one that was answered is not known."""
    usages = [call.usage for call in calls if call.state in (CallState.DONE, CallState.UNCERTAIN)]
    prices = [usage.usd for usage in usages]
    known = [price for price in prices if price is not None]
    return _tokens(usages), sum(known) if len(known) == len(prices) else None


def _tokens(usages: Iterable[Usage]) -> Tokens:
    usages = list(usages)
    return Tokens(
        input=sum(u.input_tokens for u in usages),
        output=sum(u.output_tokens for u in usages),
        cached=sum(u.cached_tokens for u in usages),
    )


def run_output(store: Store, run: Run, *, folder: Path | None = None, prompts: bool = False) -> RunOutput:
    """The whole of a run."""
    attempts, calls = store.attempts(run.id), store.calls(run.id)
    stages: dict[str, float] = defaultdict(float)
    baseline: BaselineOutput | None = None
    for stored in all_events(store, run.id):
        event = stored.event
        if isinstance(event, StageFinished):
            stages[event.stage] += event.seconds
        elif isinstance(event, BaselineMeasured):
            baseline = BaselineOutput(eager_us=event.eager_us, compile_us=event.compile_us, floor_us=event.floor_us)
    tokens, usd = spent(calls)
    verification = verification_of(store, run)
    outcome = run.outcome
    return RunOutput(
        id=run.id,
        state=run.state.value,
        task=run.spec.task.name,
        task_id=run.spec.task.id,
        language=run.spec.language.value,
        coder=run.spec.coder,
        judge=run.spec.judge,
        evaluator=run.spec.evaluator,
        preset=run.spec.preset.name,
        device=run.device.name if run.device else None,
        created=run.created,
        updated=run.updated,
        waiting_for=run.waiting_for,
        error=run.error,
        rounds=run.spec.budget.rounds,
        baseline=baseline,
        attempts=tuple(attempt_output(a) for a in attempts),
        best=_best(run, attempts, verification),
        win=bool(outcome and outcome.win),
        reason=outcome.reason if outcome else "",
        speedup=outcome.speedup if outcome and outcome.win else None,
        share_of_floor=verification.evaluation.share_of_floor if verification else None,
        cost_usd=usd,
        tokens=tokens,
        stages_s=dict(stages),
        branched_from=run.branched_from,
        kernel_folder=str(folder) if folder else None,
        calls=tuple(call_output(c) for c in calls) if prompts else None,
    )


def verification_of(store: Store, run: Run) -> Verification | None:
    """The stored verification of a finished run."""
    key = run.outcome.verification if run.outcome else None
    result = store.result(key) if key else None
    return result if isinstance(result, Verification) else None


def eager_us(evaluation: Evaluation) -> float | None:
    """What eager took beside the kernel; None where there is no time. Geometric mean over the workloads."""
    times = [timing.eager.median_us for timing in evaluation.workloads]
    return geometric_mean(times) if times else None


def _best(run: Run, attempts: Sequence[Attempt], verification: Verification | None) -> BestOutput | None:
    by_id = {a.id: a for a in attempts}
    verified = run.outcome is not None and run.outcome.win
    chosen = by_id.get(run.outcome.best) if run.outcome and run.outcome.best else None
    if chosen is None:
        timed = [(a.time_us, a.round, a) for a in attempts if a.passed and a.time_us is not None]
        chosen = min(timed)[2] if timed else None
    if chosen is None or chosen.kernel is None:
        return None
    measured = verification.evaluation if verified and verification else None
    return BestOutput(
        attempt=chosen.id,
        round=chosen.round,
        kernel=chosen.kernel,
        time_us=measured.time_us if measured else chosen.time_us,
        speedup=measured.speedup if measured else chosen.speedup,
        verified=verified,
    )


def attempt_output(attempt: Attempt) -> AttemptOutput:
    """One round."""
    return AttemptOutput(
        id=attempt.id,
        round=attempt.round,
        action=attempt.action.value,
        base=attempt.base,
        verdict=attempt.verdict,
        reason=attempt.reason,
        plan=attempt.advice if isinstance(attempt.advice, Plan) else None,
        diagnosis=attempt.advice if isinstance(attempt.advice, Diagnosis) else None,
        hint=attempt.hint,
        kernel=attempt.kernel,
        time_us=attempt.time_us,
        speedup=attempt.speedup,
        predicted_gain=attempt.predicted_gain,
        measured_gain=attempt.measured_gain,
        reply_error=attempt.reply_error,
        withdrawn=attempt.withdrawn,
    )


def call_output(call: Call) -> CallOutput:
    """One question to a model."""
    return CallOutput(
        key=call.key,
        attempt=call.attempt_id,
        role=call.role.value,
        purpose=call.purpose,
        model=call.model,
        state=call.state.value,
        messages=call.messages,
        reply=call.reply,
        error=call.error,
        tokens=_tokens([call.usage]),
        cost_usd=call.usage.usd,
        latency_s=call.latency_s,
    )


def tried(attempt: AttemptOutput) -> str:
    """What the round tried, or was to mend, in a few words; empty while nobody has said so."""
    if attempt.plan:
        return attempt.plan.method
    if attempt.diagnosis:
        return attempt.diagnosis.critical_issue
    under_way = attempt.verdict is None and not attempt.kernel and not attempt.reply_error
    if under_way and attempt.action != "draft":
        return ""  # the Judge may still be asked
    if attempt.hint:
        return attempt.hint
    alone = {
        "draft": "first draft",
        "repair": "repair from the raw error",
        "revise": "revision without a plan",
        "edit": "edited by hand",
    }
    return alone.get(attempt.action, attempt.action)


def run_row(store: Store, run: Run) -> RunRow:
    """One line of `runs`."""
    return RunRow(
        id=run.id,
        state=run.state.value,
        task=run.spec.task.name,
        language=run.spec.language.value,
        coder=run.spec.coder,
        judge=run.spec.judge,
        device=run.device.name if run.device else None,
        rounds=len(store.attempts(run.id)),
        win=bool(run.outcome and run.outcome.win),
        speedup=run.outcome.speedup if run.outcome and run.outcome.win else None,
        created=run.created,
    )


def round_output(store: Store, run: Run, number: int, *, prompts: bool = False) -> RoundOutput:
    """One round with its sources, the diff against its base, and what the machine found. UsageError: no such round."""
    attempts = {a.round: a for a in store.attempts(run.id)}
    if number not in attempts:
        known = f"it has {min(attempts)} to {max(attempts)}" if attempts else "it has none yet"
        raise UsageError(f"Run {run.id} has no round {number}, {known}.", f"See `cudaforge show {run.id}`.")
    attempt = attempts[number]
    kernel = store.kernel(attempt.kernel) if attempt.kernel else None
    base_attempt = store.attempt(attempt.base) if attempt.base else None
    base = store.kernel(base_attempt.kernel) if base_attempt and base_attempt.kernel else None
    evaluation = store.result(attempt.evaluation) if attempt.evaluation else None
    profile = store.result(attempt.profile) if attempt.profile else None
    calls = [c for c in store.calls(run.id) if c.attempt_id == attempt.id] if prompts else []
    return RoundOutput(
        run=run.id,
        attempt=attempt_output(attempt),
        files=dict(kernel.files) if kernel else {},
        diff=diff(base, kernel) if base and kernel else "",
        evaluation=evaluation if isinstance(evaluation, Evaluation) else None,
        profile=profile.model_copy(update={"report": None}) if isinstance(profile, Profile) else None,
        calls=tuple(call_output(c) for c in calls) if prompts else None,
    )


def diff(base: Kernel, kernel: Kernel) -> str:
    """Unified diff from `base` to `kernel` over all files."""
    lines: list[str] = []
    for name in sorted({*base.files, *kernel.files}):
        before, after = base.files.get(name, ""), kernel.files.get(name, "")
        lines += difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    return "\n".join(lines)


def pending_item(store: Store, run: Run) -> PendingItem | None:
    """What the run waits for; None where the reply is there and only `resume` is missing."""
    call = store.call(run.waiting_for)
    if call is not None and call.reply is not None:
        return None
    return PendingItem(
        run=run.id,
        task=run.spec.task.name,
        kind="evaluation" if call is None else "reply",
        key=run.waiting_for,
        role=call.role.value if call else None,
        purpose=call.purpose if call else None,
        since=run.updated,
        messages=call.messages if call else (),
    )
