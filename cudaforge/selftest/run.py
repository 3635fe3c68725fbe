"""Puts the suite through an Evaluator and counts what was caught."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest, Evaluation, Interval, Verdict
from cudaforge.ports import Evaluator
from cudaforge.selftest.cases import HERE, Case, Device, Outcome, Status, classes, judge, read
from cudaforge.selftest.naive import Harness, NaiveResult

KNOWN_GOOD = {"cpu": "honest_fused", "cuda": "honest_fused"}
"""The honest kernel that is evaluated after an attack on the harness; the first honest one where it is missing."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Frozen):
    """What became of one case."""

    case: str
    title: str
    kind: Literal["exploit", "honest"]
    classes: tuple[int, ...]
    layers: tuple[str, ...]
    outcome: Outcome
    verdict: Verdict | None = None
    reason: str = ""
    speedup: Interval | None = None
    """Over eager, where it PASSED."""
    seconds: float = 0.0
    stages_s: dict[str, float] = {}
    after: Outcome | None = None
    """What an honest kernel got just after an attack on the harness."""
    naive: NaiveResult | None = None
    """What the conventional check says."""

    @property
    def ok(self) -> bool:
        """The verdict is right, and so was the next one."""
        return self.outcome.status in ("caught", "right") and (self.after is None or self.after.status == "right")


class Count(_Frozen):
    """How the cases of one class or layer went. One whose successor was judged wrongly counts as missed."""

    name: str
    caught: int = 0
    missed: int = 0
    wrongly_rejected: int = 0
    infrastructure: int = 0
    cases: tuple[str, ...] = ()


class Uncovered(_Frozen):
    """A class without a case on this device."""

    number: int
    name: str
    reason: str
    """Empty where a case ought to exist."""


class Report(_Frozen):
    """What the suite found out about an evaluator. JSON by model_dump_json()."""

    device: Device
    findings: tuple[Finding, ...]
    uncovered: tuple[Uncovered, ...]

    @property
    def ok(self) -> bool:
        """Every exploit was caught, every honest kernel passed, and every class has a case or a reason."""
        return all(finding.ok for finding in self.findings) and all(entry.reason for entry in self.uncovered)

    def count(self, *statuses: Status) -> int:
        """How many cases ended like this."""
        return sum(finding.outcome.status in statuses for finding in self.findings)

    def by_class(self) -> list[Count]:
        """Counts for each class that has a case, by number; honest kernels have none."""
        covered = {number for finding in self.findings for number in finding.classes}
        return [
            _count(f"{known.number} {known.name}", [f for f in self.findings if known.number in f.classes])
            for known in classes()
            if known.number in covered
        ]

    def by_layer(self) -> list[Count]:
        """Counts for each layer, by name."""
        layers = sorted({layer for finding in self.findings for layer in finding.layers})
        return [_count(layer, [f for f in self.findings if layer in f.layers]) for layer in layers]

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """Rows for a table of the cases: name, classes, outcome, what was said, what the naive check says."""
        rows: list[tuple[str, str, str, str, str]] = []
        for finding in self.findings:
            numbers = ", ".join(map(str, finding.classes)) or "honest"
            said = finding.outcome.why or (f"{finding.speedup.value:.2f} x eager" if finding.speedup else "")
            if finding.after is not None and finding.after.status != "right":
                said += f"; the next evaluation: {finding.after.status}, {finding.after.why}"
            naive = ""
            if finding.naive is not None:
                naive = f"passes, {finding.naive.speedup:.1f} x" if finding.naive.correct else "fails"
            rows.append((finding.case, numbers, finding.outcome.status, said, naive))
        return rows


def _count(name: str, findings: Sequence[Finding]) -> Count:
    statuses = [f.outcome.status if f.ok or f.outcome.status != "caught" else "missed" for f in findings]
    return Count(
        name=name,
        caught=statuses.count("caught"),
        missed=statuses.count("missed"),
        wrongly_rejected=statuses.count("wrongly rejected"),
        infrastructure=statuses.count("infrastructure"),
        cases=tuple(f.case for f in findings),
    )


async def run(
    evaluator: Evaluator,
    cases: Sequence[Case],
    options: EvaluateOptions,
    *,
    naive: bool = False,
    after_attacks: bool = True,
    at_once: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Evaluates each case. `naive` asks the conventional check too; `after_attacks` evaluates a known-good kernel (or
    the one that the case names) after each attack on the harness: the next evaluation on the same worker must be right.
    `at_once` cases may be in flight, for an evaluator that builds beside what it measures; attacks on the harness are
    made alone, and last."""
    if not cases:
        raise ValueError("no cases")
    device = cases[0].device
    good = _known_good(cases)
    harness = Harness(device) if naive else None
    findings: dict[str, Finding] = {}

    async def one(case: Case) -> None:
        finding = await _examine(evaluator, case, options)
        if after_attacks and (good or case.after) and "harness" in case.families:
            next_one = read(HERE / "suite" / device / case.after, device) if case.after else good
            assert next_one is not None
            after = await _examine(evaluator, next_one, options.model_copy(update={"trials": 2}))
            finding = finding.model_copy(update={"after": after.outcome})
        if harness is not None:
            said = await asyncio.to_thread(harness.judge, case.task_file, case.kernel)
            finding = finding.model_copy(update={"naive": said})
        findings[case.name] = finding
        say(f"{len(findings)}/{len(cases)} {case.name}: {finding.outcome.status}. {finding.outcome.why}".rstrip())

    try:
        attacks = [case for case in cases if "harness" in case.families]
        await _together(
            [partial(one, case) for case in cases if case not in attacks], at_once if harness is None else 1
        )
        await _together([partial(one, case) for case in attacks], 1)
    finally:
        if harness is not None:
            harness.close()
    covered = {number for case in cases for number in case.classes}
    missing = [c for c in classes() if c.number not in covered]
    return Report(
        device=device,
        findings=tuple(findings[case.name] for case in cases),
        uncovered=tuple(Uncovered(number=c.number, name=c.name, reason=c.excuse(device)) for c in missing),
    )


async def _together(jobs: Sequence[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Does jobs in order, so many at once."""
    rest = iter(jobs)

    async def take() -> None:
        for job in rest:
            await job()

    takers = [asyncio.create_task(take()) for _ in range(at_once)]
    try:
        await asyncio.gather(*takers)
    finally:
        for taker in takers:
            taker.cancel()


def _known_good(cases: Sequence[Case]) -> Case | None:
    honest = [case for case in cases if case.kind == "honest"]
    wanted = [case for case in honest if case.name == KNOWN_GOOD[case.device]]
    return next(iter(wanted + honest), None)


async def _examine(evaluator: Evaluator, case: Case, options: EvaluateOptions) -> Finding:
    key = f"selftest-{case.name}-{secrets.token_hex(8)}"  # of its own each time: no earlier result may answer
    request = EvaluateRequest(key=key, task=case.task, kernel=case.kernel, options=options)
    found: Evaluation | None = None
    started = time.monotonic()
    try:
        found = await evaluator.evaluate(request)
        outcome = judge(case, found, found.speedup)
    except EvaluatorError as error:
        outcome = Outcome(status="infrastructure", why=error.message)
    return Finding(
        case=case.name,
        title=case.title,
        kind=case.kind,
        classes=case.classes,
        layers=case.layers,
        outcome=outcome,
        verdict=found.verdict if found else None,
        reason=found.reason if found else "",
        speedup=found.speedup.eager if found and found.speedup else None,
        seconds=round(time.monotonic() - started, 2),
        stages_s=found.stages_s if found else {},
    )
