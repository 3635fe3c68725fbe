"""The exploit suite against the evaluator of this machine's CPU: none missed, no honest kernel rejected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cudaforge.cli.selftest import RUN_TIMEOUT_S, TIME_BUDGET_S, TRIALS
from cudaforge.engine.local import LocalEvaluator
from cudaforge.evaluation import EvaluateOptions
from cudaforge.selftest import cases, run


@pytest.mark.timeout(2400)
def test_every_exploit_is_caught_and_every_honest_kernel_passes(tmp_path: Path) -> None:
    options = EvaluateOptions(
        trials=TRIALS, time_budget_s=TIME_BUDGET_S, run_timeout_s=RUN_TIMEOUT_S, compile_baseline=False
    )
    suite = sorted(cases.load("cpu"), key=lambda case: (case.task.name, case.name))

    async def whole() -> run.Report:
        evaluator = LocalEvaluator(tmp_path, "cpu")
        try:
            return await run.run(evaluator, suite, options)
        finally:
            await evaluator.close()

    report = asyncio.run(whole())
    wrong = [
        f"{finding.case}: {finding.outcome.status}, {finding.outcome.why}; next: {finding.after}"
        for finding in report.findings
        if not finding.ok
    ]
    assert not wrong, "\n".join(wrong)
    assert report.ok and {count.name.split()[0] for count in report.by_class()} >= {"1", "24", "36", "57"}
