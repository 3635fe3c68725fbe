"""`optimize`, `demo`, `resume`: drive a run, show it, and hand over its kernel."""

from __future__ import annotations

import json as json_module
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cudaforge.cli.output import EvaluatorOption, Home, Json
from cudaforge.errors import CudaForgeError, ExitCode, UsageError

if TYPE_CHECKING:
    from cudaforge.ports import Store
    from cudaforge.trace import Run, RunSpec

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its unambiguous beginning, or `last`.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="The kernel's folder; the last part must be a Python identifier.",
        show_default="cudaforge_kernels/TASK_KERNELID",
    ),
]
ABLATION, LIMITS = "What the loop does and what the models see", "When to stop"


def optimize(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A KernelBench-style .py file.")],
    coder: Annotated[str, typer.Option("--coder", help="openai:NAME, recorded:FOLDER or manual: (you answer).")],
    judge: Annotated[str | None, typer.Option("--judge", help="Likewise.", show_default="the Coder's")] = None,
    language: Annotated[
        Literal["cuda", "cpp", "triton", "module"] | None,
        typer.Option(
            "--language", help="What the kernel is written in.", show_default="cuda with GPU and nvcc, or cpp"
        ),
    ] = None,
    evaluator: EvaluatorOption = "local",
    output: OutputOption = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="An OpenAI-compatible server.", show_default="OPENAI_BASE_URL")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--setting", metavar="NAME=VALUE", help="Of networked models: temperature=0.2; may be repeated."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, rich_help_panel=LIMITS)] = 10,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", rich_help_panel=LIMITS)] = None,
    budget_seconds: Annotated[float | None, typer.Option("--budget-seconds", rich_help_panel=LIMITS)] = None,
    target: Annotated[
        float | None, typer.Option("--target", help="Stop at this speedup over eager.", rich_help_panel=LIMITS)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Rounds without a better kernel.", rich_help_panel=LIMITS),
    ] = None,
    preset: Annotated[
        Literal["default", "paper"],
        typer.Option("--preset", help="paper: the published loop.", rich_help_panel=ABLATION),
    ] = "default",
    base: Annotated[
        Literal["best", "last"] | None,
        typer.Option("--base", help="What a revision starts from.", rich_help_panel=ABLATION),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Metric set of profiles.", rich_help_panel=ABLATION)
    ] = None,
    history: Annotated[
        int | None,
        typer.Option("--history", min=0, help="Earlier attempts that are summed up.", rich_help_panel=ABLATION),
    ] = None,
    reference: Annotated[
        bool | None,
        typer.Option("--reference/--no-reference", help="On every call.", rich_help_panel=ABLATION, show_default=False),
    ] = None,
    numbers: Annotated[
        bool | None,
        typer.Option("--numbers/--no-numbers", help="Times and floor.", rich_help_panel=ABLATION, show_default=False),
    ] = None,
    correction: Annotated[
        bool | None,
        typer.Option(
            "--correction/--no-correction",
            help="The Judge reads failures.",
            rich_help_panel=ABLATION,
            show_default=False,
        ),
    ] = None,
    optimization: Annotated[
        bool | None,
        typer.Option(
            "--optimization/--no-optimization",
            help="Go on after the first that passes.",
            rich_help_panel=ABLATION,
            show_default=False,
        ),
    ] = None,
    self_refine: Annotated[
        bool | None,
        typer.Option(
            "--self-refine/--no-self-refine",
            help="One model plays both roles, in one call.",
            rich_help_panel=ABLATION,
            show_default=False,
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Optimise TASK: a model writes kernels, this machine builds, checks and times them, round by round.

    In the table of rounds, `vs base` is the speedup over eager divided by that of the kernel which the round began
    with. The models of a run stay the same when it is resumed.

    Exit code 0 means a verified win, 4 that none was found, 5 that the run waits for a reply or an evaluation.
    """
    from cudaforge import wiring
    from cudaforge.task import Task
    from cudaforge.trace import Budget

    switches = {
        "base": base,
        "metrics": metrics,
        "history": history,
        "show_reference": reference,
        "show_numbers": numbers,
        "correction": correction,
        "optimization": optimization,
        "self_refine": self_refine,
    }
    spec = wiring.make_spec(
        Task.load(task),
        coder=coder,
        judge=judge,
        language=language,
        evaluator=evaluator,
        budget=Budget(
            rounds=rounds,
            usd=_positive("--budget-usd", budget_usd),
            seconds=_positive("--budget-seconds", budget_seconds),
            target_speedup=_positive("--target", target),
            patience=patience,
        ),
        preset=preset,
        switches=switches,
        settings=_settings(setting or []),
        base_url=base_url,
    )
    _start(spec, home, output, json)


def demo(
    task: Annotated[
        str | None, typer.Option("--task", help="An example's name.", show_default="layer_norm_bias")
    ] = None,
    language: Annotated[
        Literal["cuda", "cpp"] | None,
        typer.Option("--language", help="Of the kernels.", show_default="cuda with GPU and nvcc, or cpp"),
    ] = None,
    evaluator: EvaluatorOption = "local",
    output: OutputOption = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run an example: the models' replies come from a recording, everything else is live on this machine."""
    from cudaforge import examples, wiring
    from cudaforge.cli.output import err
    from cudaforge.task import Task
    from cudaforge.trace import Budget

    example = examples.find(task or examples.DEFAULT, wiring.choose_language(language, evaluator).value)
    err().print(example.announcement(), soft_wrap=True, markup=False)
    spec = wiring.make_spec(
        Task.load(example.task),
        coder=f"recorded:{example.recording}",
        language=language,
        evaluator=evaluator,
        budget=Budget(rounds=example.rounds),
    )
    _start(spec, home, output, json)


def resume(run: RunArgument, output: OutputOption = None, home: Home = None, json: Json = False) -> None:
    """Continue RUN where it stands: suspended, stopped, failed or cut off.

    Nothing that was received is asked again, nothing that was measured is measured again. Its models stay the same.
    """
    from cudaforge import wiring

    folder = wiring.resolve_home(home)
    store = wiring.open_store(folder)
    try:
        found = wiring.find_run(store, run)
        _check_output(output)
        _drive(store, found, folder, output, json)
    finally:
        store.close()


def _start(spec: RunSpec, home: Path | None, output: Path | None, json: bool) -> None:
    from cudaforge import wiring

    _check_output(output)
    folder = wiring.resolve_home(home)
    store = wiring.open_store(folder)
    try:
        notice = wiring.first_network_notice(store, spec)
        run = wiring.create_run(spec, store)
        if notice:
            from cudaforge.cli.output import err

            err().print(notice, soft_wrap=True, markup=False)
        _drive(store, run, folder, output, json)
    finally:
        store.close()


def _drive(store: Store, run: Run, home: Path, output: Path | None, json: bool) -> None:
    """Drives the run to its next rest, reports, and leaves with the exit code that fits."""
    from cudaforge.cli import live, report
    from cudaforge.cli.output import emit, err, out
    from cudaforge.describe import run_output

    # Known before the first token is spent, so that a killed terminal does not take it along.
    err().print(f"run {run.id} (continue it any time with: cudaforge resume {run.id})", soft_wrap=True, markup=False)
    try:
        ended = live.drive(store, run, home)
    except CudaForgeError as error:
        error.hint = " ".join(filter(None, [error.hint, f"Then `cudaforge resume {run.id}` continues the run."]))
        raise
    folder = _write_kernel(store, ended, output)
    if json:
        emit(run_output(store, ended, folder=folder))
    else:
        out().print(report.ending(store, ended, folder))
    code = report.exit_code(ended)
    if code is ExitCode.INTERRUPTED:
        err().print(f"Stopped; `cudaforge resume {ended.id}` continues it.", soft_wrap=True, markup=False)
    if code is not ExitCode.OK:
        raise typer.Exit(int(code))


def _write_kernel(store: Store, run: Run, output: Path | None) -> Path | None:
    """Writes the winner as a package and returns its folder; None where there is none."""
    if run.outcome is None or not run.outcome.win or run.outcome.kernel is None:
        return None
    kernel = store.kernel(run.outcome.kernel)
    if kernel is None:
        return None
    name = re.sub(r"\W", "_", run.spec.task.name, flags=re.ASCII)
    default = Path("cudaforge_kernels") / f"{name if name[:1].isalpha() else 'task_' + name}_{kernel.id}"
    return kernel.write_package(output or default)


def _check_output(folder: Path | None) -> None:
    """Refuses, before anything is spent, a folder that cannot be imported or that holds something else."""
    if folder is None:
        return
    name = folder.absolute().name
    if not name.isidentifier():
        raise UsageError(
            f"--output: {name!r} cannot be a Python package's name.", "Use letters, digits and underscores."
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: {folder} is a file.", "Name a folder; it is made where it is missing.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "kernel.json").is_file():
        raise UsageError(f"--output: {folder} holds something other than a kernel.", "Name a new or empty folder.")


def _positive(option: str, value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise UsageError(f"{option} must be above 0.", "Leave it out for no limit.")
    return value


def _settings(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that reads as JSON is taken as such, any other as text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--setting {pair!r} is not NAME=VALUE.", "For example --setting temperature=0.2")
        if name in ("api_key", "base_url"):
            raise UsageError(f"--setting cannot hold {name}.", "Use OPENAI_API_KEY, and --base-url.")
        try:
            settings[name] = json_module.loads(value)
        except ValueError:
            settings[name] = value
    return settings
