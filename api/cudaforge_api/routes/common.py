"""What several routes need: path and query parameters, and requests turned into the core's objects."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query

from cudaforge import wiring
from cudaforge.errors import TaskError
from cudaforge.evaluation import EvaluateOptions
from cudaforge.jobs import Bounds
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task
from cudaforge.trace import Run, RunState
from cudaforge_api.access import Caller
from cudaforge_api.problems import ProblemError
from cudaforge_api.service import Service, service_of
from cudaforge_api.shapes import (
    DIGEST,
    EVALUATION_ID,
    KERNEL_ID,
    RUN_ID,
    TASK_ID,
    NewKernel,
    NewOptions,
    NewTask,
)

TheService = Annotated[Service, Depends(service_of)]
RunId = Annotated[str, Path(pattern=RUN_ID, examples=["r3f9a0b1c2d"])]
TaskId = Annotated[str, Path(pattern=TASK_ID)]
KernelId = Annotated[str, Path(pattern=KERNEL_ID)]
EvaluationId = Annotated[str, Path(pattern=EVALUATION_ID)]
Digest = Annotated[str, Path(pattern=DIGEST, description="SHA-256 in hex.")]
Round = Annotated[int, Path(ge=0, le=1000)]
Limit = Annotated[int, Query(ge=1, le=200, description="Items of a page.")]
After = Annotated[int, Query(ge=0, le=2**62, description="Only events with a higher id.")]

READS = ("unauthenticated", "forbidden", "invalid", "unknown-host", "bad-request", "internal", "unavailable")
"""Problems that any route may answer with."""
WRITES = (*READS, "cross-origin", "too-large")


def the_run(service: Service, run_id: str) -> Run:
    """The run, or a problem."""
    run = service.record.run(run_id)
    if run is None:
        raise ProblemError("not-found", f"There is no run {run_id}.", "GET /api/v1/runs lists them.")
    return run


def check_owner(service: Service, caller: Caller, job_id: str) -> None:
    """Raises a problem where the caller may not change this run or evaluation."""
    job = service.record.queue.job(job_id)
    if not caller.may_change(job.submitter if job else None):
        raise ProblemError("forbidden", "It was submitted by somebody else.", "A token with the scope admin may.")


def bounds_of(service: Service, caller: Caller) -> Bounds:
    """What this caller may have under way."""
    bounds = service.settings.limits.queue
    return bounds.model_copy(update={"active": caller.max_active}) if caller.max_active else bounds


def task_of(service: Service, given: str | NewTask) -> Task:
    """The task that a request names or holds. Raises TaskError, or a problem where it is unknown."""
    if isinstance(given, str):
        task = service.record.task(given)
        if task is None:
            raise ProblemError("not-found", f"There is no task {given}.", "Upload it with POST /api/v1/tasks.")
        return task
    most = service.settings.limits.source
    if len(given.source.encode("utf-8", "surrogatepass")) > most:
        raise TaskError(f"The source is larger than {most} bytes.", "GET /api/v1/about shows the limits.")
    beside = given.meta.model_dump(mode="json", exclude_unset=True) if given.meta else None
    return Task.parse(given.source, name=given.name, file=f"{given.name}.py", beside=beside)


def kernel_of(service: Service, given: str | NewKernel) -> Kernel:
    """The kernel that a request names or holds. Raises KernelError, or a problem where it is unknown."""
    if isinstance(given, str):
        kernel = service.record.kernel(given)
        if kernel is None:
            raise ProblemError("not-found", f"There is no kernel {given}.")
        return kernel
    most = service.settings.limits.source
    if any(len(text.encode("utf-8", "surrogatepass")) > most for text in given.files.values()):
        raise ProblemError("unusable", f"A file of the kernel is larger than {most} bytes.")
    return Kernel.of(given.language, given.files, given.flags)


def evaluator_of(service: Service, asked: str | None, language: Language) -> str:
    """The evaluator to use, pinned to the device that the language needs. Raises UsageError, or a problem."""
    offered = service.settings.evaluators
    if asked is not None and asked not in offered:
        raise ProblemError("unusable", f"There is no evaluator {asked!r} here.", f"There are: {', '.join(offered)}.")
    chosen = asked or offered[0]
    wiring.choose_language(language.value, chosen)
    return wiring.fit_evaluator(chosen, language)


def options_of(given: NewOptions) -> EvaluateOptions:
    """The options of a request."""
    return EvaluateOptions.model_validate(given.model_dump())


def page(items: list[Any], limit: int) -> tuple[tuple[Any, ...], str | None]:
    """A page out of `limit + 1` items that were asked for, and the cursor of the next one."""
    shown = tuple(items[:limit])
    return shown, shown[-1].id if len(items) > limit else None


def is_final(state: RunState) -> bool:
    """Whether a run goes on only if somebody resumes it."""
    return state in (RunState.DONE, RunState.STOPPED, RunState.FAILED)
