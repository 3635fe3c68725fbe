"""The local evaluator: a supervisor process of its own, kept to the port's contract."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.evaluator_contract import RULES, Case, keep
from support.tasks import KERNEL_CPP, cpp, module, scale_add

from cudaforge.engine.local import LocalEvaluator
from cudaforge.errors import EvaluatorError, TaskError
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest
from cudaforge.task import Task

QUICK = EvaluateOptions(trials=2, time_budget_s=0.05)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local-home")


@pytest.mark.timeout(900)
def test_it_keeps_the_contract_of_the_port(home: Path) -> None:
    case = Case(scale_add(), cpp(), cpp(KERNEL_CPP.replace("rows =", "rows ==")), options=QUICK)

    async def all_rules() -> None:
        # One evaluator for all rules: each starts from what the last one left behind.
        evaluator = LocalEvaluator(home, "cpu")
        for rule in RULES:
            await keep(rule, evaluator, case)
        await evaluator.close()

    asyncio.run(all_rules())


def test_errors_of_the_task_and_of_the_device_are_told_apart(home: Path) -> None:
    async def ask(device: str, task: Task) -> None:
        evaluator = LocalEvaluator(home, device)
        try:
            await evaluator.evaluate(EvaluateRequest(key="k", task=task, kernel=module("return x"), options=QUICK))
        finally:
            await evaluator.close()

    broken = Task.parse(scale_add().source.replace("x * self.weight", "x * self.wieght"), name="broken")
    with pytest.raises(TaskError, match="AttributeError"):
        asyncio.run(ask("cpu", broken))
    with pytest.raises(EvaluatorError, match="cuda:99 is not here"):
        asyncio.run(ask("cuda:99", scale_add()))


def test_a_supervisor_that_is_killed_is_an_infrastructure_error_and_the_next_request_works(home: Path) -> None:
    async def run() -> None:
        evaluator = LocalEvaluator(home, "cpu")
        slow = module("import time; time.sleep(60)")
        asking = asyncio.create_task(
            evaluator.evaluate(EvaluateRequest(key="slow", task=scale_add(), kernel=slow, options=QUICK))
        )
        while evaluator.lanes[0].worker.process is None:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        os.kill(evaluator.lanes[0].worker.process.pid, signal.SIGKILL)
        with pytest.raises(EvaluatorError, match="ended"):
            await asking
        found = await evaluator.evaluate(EvaluateRequest(key="next", task=scale_add(), kernel=cpp(), options=QUICK))
        assert found.passed
        await evaluator.close()

    asyncio.run(run())
