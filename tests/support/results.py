"""Results, sessions and kernels in use as displays and plots see them: the shape of the real ones over a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cudaforge.describe import verification_of
from cudaforge.evaluation import Baseline, Evaluation, Speedup, Verification
from cudaforge.kernel import Kernel
from cudaforge.ports import Store
from cudaforge.task import Task
from cudaforge.trace import Attempt, Run
from cudaforge_profiling.types import Profile


@dataclass
class UsableKernel:
    kernel: Kernel
    verified: bool = True

    @property
    def id(self) -> str:
        return self.kernel.id

    @property
    def files(self) -> dict[str, str]:
        return self.kernel.files


@dataclass
class RunResult:
    store: Store
    run: Run

    @property
    def task(self) -> Task:
        return self.run.spec.task

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(self.store.attempts(self.run.id))

    @property
    def kernel(self) -> UsableKernel | None:
        outcome = self.run.outcome
        kernel = self.store.kernel(outcome.kernel) if outcome and outcome.kernel else None
        return UsableKernel(kernel, bool(outcome and outcome.win)) if kernel else None

    @property
    def speedup(self) -> Speedup | None:
        return self.run.outcome.speedup if self.run.outcome else None

    @property
    def baseline(self) -> Baseline | None:
        return self._result(f"{self.run.id}/baseline/0")

    @property
    def verification(self) -> Verification | None:
        return verification_of(self.store, self.run)

    def evaluation(self, attempt: Attempt) -> Evaluation | None:
        return self._result(attempt.evaluation)

    def profile(self, attempt: Attempt) -> Profile | None:
        return self._result(attempt.profile)

    def source(self, attempt: Attempt) -> Kernel | None:
        return self.store.kernel(attempt.kernel) if attempt.kernel else None

    def _result(self, key: str | None) -> Any:
        return self.store.result(key) if key else None


@dataclass
class Session:
    result: RunResult
    head: Attempt | None = None
    edits: list[Kernel] = field(default_factory=list)
    found: Evaluation | None = None

    @property
    def run(self) -> Run:
        return self.result.run

    @property
    def history(self) -> tuple[Attempt, ...]:
        return self.result.attempts

    def edit(self, kernel: Kernel) -> None:
        self.edits.append(kernel)

    def evaluate(self) -> Evaluation | None:
        return self.found
