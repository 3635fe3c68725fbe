"""One line for each object of the vocabulary: what `repr` and `print` show, and what a notebook falls back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cudaforge import words
from cudaforge.evaluation import Baseline, Evaluation, Verification
from cudaforge.kernel import Kernel
from cudaforge.task import Task
from cudaforge.trace import Attempt, Diagnosis, Plan, Run


def plain(thing: object) -> str:
    """`<Kernel k0123456789abcdef cpp: kernel.cpp 34 lines, model.py 20 lines>`: never a whole source."""
    name = type(thing).__name__
    says = next((SAYS[kind] for kind in type(thing).__mro__ if kind in SAYS), None)
    return f"<{name} {says(thing)}>" if says else object.__repr__(thing)


def _task(task: Task) -> str:
    return f"{task.id} {words.one_line(task.name, 60)}: {lines(task.source)}, {_workloads(len(task.meta.workloads))}"


def _kernel(kernel: Kernel) -> str:
    files = ", ".join(f"{name} {lines(kernel.files[name])}" for name in kernel.language.file_names)
    flags = f", {words.one_line(' '.join(kernel.flags))}" if kernel.flags else ""
    return f"{kernel.id} {kernel.language.value}: {files}{flags}"


def _baseline(baseline: Baseline) -> str:
    compiled = f", torch.compile {words.microseconds(baseline.compile_us)}" if baseline.compile_us else ""
    return f"on {words.one_line(baseline.device.name, 60)}: eager {words.microseconds(baseline.eager_us)}{compiled}"


def _evaluation(found: Evaluation) -> str:
    if found.speedup is None:
        rule = f" ({words.one_line(found.rule, 40)})" if found.rule else ""
        return f"of {found.kernel}: {found.verdict.value}{rule}, {words.one_line(found.reason)}"
    eager = words.interval(found.speedup.eager)
    return f"of {found.kernel}: {found.verdict.value}, {words.microseconds(found.time_us)} a call, {eager} over eager"


def _verification(found: Verification) -> str:
    return f"{'a win' if found.win else 'no win'} in {found.processes} processes: {plain(found.evaluation)}"


def _plan(plan: Plan) -> str:
    gain = f", predicted {words.times(plan.predicted_gain)}" if plan.predicted_gain else ""
    return f"{words.one_line(plan.method)}{gain}"


def _attempt(attempt: Attempt) -> str:
    verdict = attempt.verdict.value if attempt.verdict else "no kernel" if attempt.reply_error else "under way"
    said = f"{attempt.id} {attempt.action.value}: {verdict}"
    if attempt.speedup is None:
        return said + (f", {words.one_line(attempt.reason)}" if attempt.reason else "")
    return f"{said}, {words.microseconds(attempt.time_us)}, {words.interval(attempt.speedup.eager)} over eager"


def _run(run: Run) -> str:
    said = f"{run.id} {words.one_line(run.spec.task.name, 60)} ({run.spec.language.value}): {run.state.value}"
    if run.outcome is None:
        return said + (f", {words.one_line(run.error)}" if run.error else "")
    if run.outcome.win and run.outcome.speedup:
        return f"{said}, {words.interval(run.outcome.speedup.eager)} over eager, verified"
    return f"{said}, no verified win, {words.one_line(run.outcome.reason)}"


def lines(text: str) -> str:
    """`34 lines`."""
    number = len(text.splitlines())
    return f"{number} line{'s' * (number != 1)}"


def _workloads(number: int) -> str:
    return f"{number} workload{'s' * (number != 1)}"


SAYS: dict[type, Callable[[Any], str]] = {
    Task: _task,
    Kernel: _kernel,
    Baseline: _baseline,
    Evaluation: _evaluation,
    Verification: _verification,
    Plan: _plan,
    Diagnosis: lambda diagnosis: words.one_line(diagnosis.critical_issue),
    Attempt: _attempt,
    Run: _run,
}
