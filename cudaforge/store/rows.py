"""Vocabulary object -> the values of its row: the typed columns and the body."""

from __future__ import annotations

from typing import Any

from cudaforge.evaluation import Baseline, Evaluation, Result, Verification
from cudaforge.jobs import SingleEvaluation
from cudaforge.kernel import Kernel
from cudaforge.store.codec import encode, kind_of, plain, stamp
from cudaforge.task import Task
from cudaforge.trace import Attempt, Call, Event, Run, StageFinished, StageStarted, now
from cudaforge_profiling.types import Profile

Values = dict[str, Any]


def run_values(run: Run) -> Values:
    outcome = run.outcome
    eager = outcome.speedup.eager if outcome and outcome.speedup else None
    compiled = outcome.speedup.compile if outcome and outcome.speedup else None
    return _fit(
        id=run.id,
        state=run.state.value,
        created=stamp(run.created),
        updated=stamp(run.updated),
        task=run.spec.task.id,
        task_name=run.spec.task.name,
        language=run.spec.language.value,
        coder=run.spec.coder,
        judge=run.spec.judge,
        evaluator=run.spec.evaluator,
        preset=run.spec.preset.name,
        device=run.device.name if run.device else None,
        waiting_for=run.waiting_for,
        error=run.error,
        win=outcome.win if outcome else None,
        best=outcome.best if outcome else None,
        kernel=outcome.kernel if outcome else None,
        speedup=eager.value if eager else None,
        speedup_low=eager.low if eager else None,
        speedup_high=eager.high if eager else None,
        speedup_compile=compiled.value if compiled else None,
        body=encode(run),
    )


def attempt_values(attempt: Attempt) -> Values:
    return _fit(
        id=attempt.id,
        run_id=attempt.run_id,
        round=attempt.round,
        action=attempt.action.value,
        verdict=attempt.verdict.value if attempt.verdict else None,
        speedup=attempt.speedup.eager.value if attempt.speedup else None,
        time_us=attempt.time_us,
        kernel=attempt.kernel,
        started=stamp(attempt.started),
        finished=stamp(attempt.finished) if attempt.finished else None,
        body=encode(attempt),
    )


def kernel_values(kernel: Kernel) -> Values:
    return _fit(id=kernel.id, language=kernel.language.value, created=stamp(now()), body=encode(kernel))


def call_values(call: Call) -> Values:
    return _fit(
        key=call.key,
        run_id=call.run_id,
        attempt_id=call.attempt_id,
        role=call.role.value,
        purpose=call.purpose,
        position=call.position,
        model=call.model,
        state=call.state.value,
        answered=call.reply is not None,
        input_tokens=call.usage.input_tokens,
        output_tokens=call.usage.output_tokens,
        cached_tokens=call.usage.cached_tokens,
        usd=call.usage.usd,
        latency_s=call.latency_s,
        started=stamp(call.started),
        body=encode(call),
    )


def result_values(run_id: str, key: str, result: Result, report: str | None) -> Values:
    """`report` is the digest of a profile's report, whose bytes are not in `result` any more."""
    evaluation = result.evaluation if isinstance(result, Verification) else result
    passed = evaluation if isinstance(evaluation, Evaluation) else None
    return _fit(
        key=key,
        run_id=run_id,
        kind=kind_of(result),
        task=None if isinstance(evaluation, Profile) else evaluation.task,
        kernel=None if isinstance(evaluation, Baseline) else evaluation.kernel,
        device=evaluation.device.name,
        verdict=passed.verdict.value if passed else None,
        time_us=evaluation.eager_us if isinstance(evaluation, Baseline) else passed.time_us if passed else None,
        speedup=passed.speedup.eager.value if passed and passed.speedup else None,
        report=report,
        created=stamp(now()),
        body=encode(result),
    )


def event_values(event: Event) -> Values:
    return _fit(
        at=stamp(now()),
        run_id=event.run_id,
        type=event.type,
        stage=event.stage if isinstance(event, StageStarted | StageFinished) else None,
        seconds=event.seconds if isinstance(event, StageFinished) else None,
        body=encode(event),
    )


def task_values(task: Task, submitter: str) -> Values:
    return _fit(id=task.id, name=task.name, submitter=submitter, created=stamp(now()), body=encode(task))


def single_values(single: SingleEvaluation) -> Values:
    return _fit(
        id=single.id,
        state=single.state.value,
        task=single.task.id,
        task_name=single.task.name,
        kernel=single.kernel.id,
        verdict=single.evaluation.verdict.value if single.evaluation else None,
        created=stamp(single.created),
        updated=stamp(single.updated),
        body=encode(single),
    )


def _fit(**values: Any) -> Values:
    """Texts made fit for SQLite, which stores UTF-8 and so no lone surrogates; the body's JSON escapes them."""
    return {name: plain(value) if isinstance(value, str) else value for name, value in values.items()}
