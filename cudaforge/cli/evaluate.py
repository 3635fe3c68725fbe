"""`evaluate` and `profile`: one kernel, without any model."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cudaforge.cli.output import EvaluatorOption, Home, Json
from cudaforge.errors import ExitCode, Suspended

if TYPE_CHECKING:
    from cudaforge.evaluation import EvaluateOptions, Evaluation
    from cudaforge.kernel import Kernel
    from cudaforge.task import Task
    from cudaforge_profiling.types import Profile

TaskArgument = Annotated[Path, typer.Argument(metavar="TASK", help="A KernelBench-style .py file.")]
KernelArgument = Annotated[
    Path,
    typer.Argument(metavar="KERNEL", help="A folder with kernel.cu or kernel.cpp and model.py, or one .py file."),
]
FormatOption = Annotated[
    Literal["cuda", "cpp", "triton", "module"] | None,
    typer.Option("--format", help="What KERNEL is.", show_default="guessed from its files"),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="Of an earlier request to a spool, to fetch its result.", show_default="a new one"),
]
TrialsOption = Annotated[int, typer.Option("--trials", min=1, max=64, help="Fresh inputs to check on.")]


def evaluate(
    task: TaskArgument,
    kernel: KernelArgument,
    format: FormatOption = None,
    trials: TrialsOption = 5,
    strict_isolation: Annotated[
        bool, typer.Option("--strict-isolation", help="Refuse where a layer of confinement is missing.")
    ] = False,
    evaluator: EvaluatorOption = "local",
    key: KeyOption = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Build, check and time KERNEL against TASK.

    KERNEL is a folder: kernel.cu + model.py (cuda), kernel.cpp + model.py (cpp), or one .py file that defines
    ModelNew (triton, module). Exit code: 0 PASSED, 1 any other verdict on the kernel, 2 usage, 3 infrastructure.
    """
    from cudaforge.cli import found
    from cudaforge.cli.output import busy, emit, out
    from cudaforge.evaluation import EvaluateOptions

    loaded = _load(task, kernel, format)
    options = EvaluateOptions(trials=trials, strict_isolation=strict_isolation)
    with busy("building, checking, timing ..."):
        evaluation, _ = asyncio.run(_look(loaded, options, evaluator, home, key))
    if json:
        emit(evaluation)
    else:
        out().print(found.evaluation(evaluation))
    _leave(evaluation)


def profile(
    task: TaskArgument,
    kernel: KernelArgument,
    metrics: Annotated[str, typer.Option("--metrics", help="Metric set: core or paper.")] = "core",
    format: FormatOption = None,
    trials: TrialsOption = 5,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the .ncu-rep file here, where there is one.")
    ] = None,
    evaluator: EvaluatorOption = "local",
    key: KeyOption = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Evaluate KERNEL, and where it passes look at it with the profiler. Exit codes as `evaluate`."""
    from cudaforge.cli import found
    from cudaforge.cli.output import busy, emit, err, out
    from cudaforge.evaluation import EvaluateOptions
    from cudaforge.shapes import ProfileOutput

    loaded = _load(task, kernel, format)
    options = EvaluateOptions(trials=trials)
    with busy("building, checking, timing, profiling ..."):
        evaluation, seen = asyncio.run(_look(loaded, options, evaluator, home, key, metrics))
    if report and seen and seen.report:
        report.write_bytes(seen.report)
    elif report:
        err().print("There is no report to write.", style="yellow")
    seen = seen.model_copy(update={"report": None}) if seen else None
    if json:
        emit(ProfileOutput(evaluation=evaluation, profile=seen))
    else:
        out().print(found.evaluation(evaluation))
        if seen:
            out().print(found.profile(seen, [timing.workload for timing in evaluation.workloads]))
    _leave(evaluation)


def _load(task: Path, kernel: Path, format: str | None) -> tuple[Task, Kernel]:
    from cudaforge.kernel import Kernel, Language
    from cudaforge.task import Task

    return Task.load(task), Kernel.load(kernel, Language(format) if format else None)


async def _look(
    loaded: tuple[Task, Kernel],
    options: EvaluateOptions,
    evaluator: str,
    home: Path | None,
    key: str | None,
    metrics: str | None = None,
) -> tuple[Evaluation, Profile | None]:
    """See wiring.look."""
    from cudaforge import wiring

    task, kernel = loaded
    asked: dict[str, Any] = {"evaluator": evaluator, "home": wiring.resolve_home(home), "options": options}
    key = key or f"cli-{secrets.token_hex(6)}"
    try:
        return await wiring.look(task, kernel, key=key, metrics=metrics, **asked)
    except Suspended as waiting:
        hint = f"Start an evaluator, then repeat this command with --key {key}."
        raise Suspended(waiting.message, hint, waiting_for=key) from None


def _leave(evaluation: Evaluation) -> None:
    from cudaforge.evaluation import Verdict

    if evaluation.verdict is Verdict.INFRASTRUCTURE:
        raise typer.Exit(int(ExitCode.INFRASTRUCTURE))
    if not evaluation.passed:
        raise typer.Exit(int(ExitCode.NEGATIVE))
