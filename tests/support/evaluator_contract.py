"""What every Evaluator must do. Each function is one rule; a test runs them over one implementation.

@pytest.mark.parametrize("rule", RULES)
def test_local_evaluator_keeps(rule, tmp_path):
    asyncio.run(keep(rule, LocalEvaluator(tmp_path), case))
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateOptions,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Verdict,
    Verification,
    VerifyRequest,
)
from cudaforge.kernel import Kernel
from cudaforge.ports import Evaluator
from cudaforge.task import Task
from cudaforge_profiling.types import Profile


@dataclass(frozen=True)
class Case:
    """A task, a kernel that passes it, and one that gets the verdict `broken_verdict`."""

    task: Task
    good: Kernel
    broken: Kernel
    broken_verdict: Verdict = Verdict.BUILD_FAILED
    options: EvaluateOptions = field(default_factory=EvaluateOptions)


def new_key() -> str:
    """A key that no other question has."""
    return f"contract/{secrets.token_hex(8)}"


async def baseline_describes_the_task(evaluator: Evaluator, case: Case) -> None:
    found = await evaluator.baseline(BaselineRequest(key=new_key(), task=case.task, options=case.options))
    assert isinstance(found, Baseline)
    assert found.task == case.task.id
    assert [w.workload for w in found.workloads] == [w.name for w in case.task.meta.workloads]
    assert found.eager_us > 0
    assert Baseline.model_validate_json(found.model_dump_json()) == found


async def good_kernel_passes(evaluator: Evaluator, case: Case) -> None:
    found = await evaluator.evaluate(_evaluate(case))
    assert isinstance(found, Evaluation)
    assert found.verdict is Verdict.PASSED, found.reason
    assert (found.task, found.kernel) == (case.task.id, case.good.id)
    assert found.speedup is not None
    assert found.speedup.eager.low <= found.speedup.eager.value <= found.speedup.eager.high
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


async def broken_kernel_is_a_verdict_and_no_exception(evaluator: Evaluator, case: Case) -> None:
    found = await evaluator.evaluate(_evaluate(case, kernel=case.broken))
    assert found.verdict is case.broken_verdict, found.reason
    assert found.reason
    assert found.kernel == case.broken.id


async def profile_names_the_kernel_and_the_metric_set(evaluator: Evaluator, case: Case) -> None:
    request = ProfileRequest(key=new_key(), task=case.task, kernel=case.good, options=case.options, time_us=100.0)
    found = await evaluator.profile(request)
    assert isinstance(found, Profile)
    assert (found.kernel, found.metric_set) == (case.good.id, request.metric_set)
    assert found.launches or found.roofline or found.unavailable
    assert Profile.model_validate_json(found.model_dump_json()) == found


async def verification_measures_the_winner(evaluator: Evaluator, case: Case) -> None:
    request = VerifyRequest(key=new_key(), task=case.task, kernel=case.good, options=case.options, processes=2)
    found = await evaluator.verify(request)
    assert isinstance(found, Verification)
    assert found.evaluation.kernel == case.good.id
    assert found.evaluation.verdict is Verdict.PASSED, found.evaluation.reason
    assert Verification.model_validate_json(found.model_dump_json()) == found


async def asking_twice_with_one_key_gives_one_result(evaluator: Evaluator, case: Case) -> None:
    """Raw times and stage times differ from work to work, so equal results mean that the work was done once."""
    request = _evaluate(case)
    assert await evaluator.evaluate(request) == await evaluator.evaluate(request)


async def asking_at_once_with_one_key_gives_one_result(evaluator: Evaluator, case: Case) -> None:
    request = _evaluate(case)
    first, second = await asyncio.gather(evaluator.evaluate(request), evaluator.evaluate(request))
    assert first == second


async def new_key_is_new_work(evaluator: Evaluator, case: Case) -> None:
    first, second = await evaluator.evaluate(_evaluate(case)), await evaluator.evaluate(_evaluate(case))
    assert first.verdict == second.verdict
    assert first != second


async def failed_kernel_leaves_the_evaluator_usable(evaluator: Evaluator, case: Case) -> None:
    await evaluator.evaluate(_evaluate(case, kernel=case.broken))
    assert (await evaluator.evaluate(_evaluate(case))).passed


async def close_may_be_repeated(evaluator: Evaluator, case: Case) -> None:
    await evaluator.close()
    await evaluator.close()


Rule = Callable[[Evaluator, Case], Awaitable[None]]
RULES: tuple[Rule, ...] = (
    baseline_describes_the_task,
    good_kernel_passes,
    broken_kernel_is_a_verdict_and_no_exception,
    profile_names_the_kernel_and_the_metric_set,
    verification_measures_the_winner,
    asking_twice_with_one_key_gives_one_result,
    asking_at_once_with_one_key_gives_one_result,
    new_key_is_new_work,
    failed_kernel_leaves_the_evaluator_usable,
    close_may_be_repeated,
)


async def keep(rule: Rule, evaluator: Evaluator, case: Case) -> None:
    """Runs one rule and closes the evaluator."""
    try:
        await rule(evaluator, case)
    finally:
        await evaluator.close()


def _evaluate(case: Case, kernel: Kernel | None = None) -> EvaluateRequest:
    return EvaluateRequest(key=new_key(), task=case.task, kernel=kernel or case.good, options=case.options)
