"""The door for Python: optimise a module, judge a kernel, read the record. `import cudaforge as cf` has it all.

Blocking functions work in a script and inside of a notebook's running event loop; each has an async twin.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cudaforge import background, wiring
from cudaforge.errors import CudaForgeError, KernelError, UsageError
from cudaforge.evaluation import EvaluateOptions, Evaluation
from cudaforge.inuse import UsableKernel
from cudaforge.kernel import Kernel, Language
from cudaforge.results import RunResult
from cudaforge.task import Task
from cudaforge.trace import Budget, Run, RunSpec
from cudaforge_profiling.types import Profile

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cudaforge.store.sqlite import SqliteStore


def optimize(
    module_or_path: nn.Module | Task | Path | str,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    *,
    coder: str,
    judge: str | None = None,
    rounds: int = 10,
    budget_usd: float | None = None,
    budget_seconds: float | None = None,
    target: float | None = None,
    patience: int | None = None,
    language: str | Language | None = None,
    evaluator: str = "local",
    preset: str = "default",
    options: EvaluateOptions | None = None,
    base_url: str | None = None,
    model_settings: Mapping[str, Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    task_file: Path | str | None = None,
    progress: bool | None = None,
    home: Path | str | None = None,
) -> RunResult:
    """Optimises a module: a Coder writes kernels, this machine builds, checks and times them, round by round.

    Args:
        module_or_path: a live nn.Module, the path of a task file, or a Task.
        inputs: the arguments of a live module's forward, a tensor or a sequence, of the shapes, dtypes and kinds of
            values that matter. For modules alone.
        coder: the model that writes kernels: `openai:NAME` (any OpenAI-compatible server), `recorded:FOLDER`, or
            `manual:` (a person answers; the result comes back suspended).
        judge: the model that reads failures and profiles; by default the Coder's.
        rounds: the most attempts, 1 to 1000.
        budget_usd: US dollars that model calls may cost; None for no limit. So are the next two.
        budget_seconds: seconds of work, the verification included.
        target: a speedup over eager that is enough.
        patience: rounds without a better kernel after which the search ends.
        language: cuda, cpp, triton or module; by default cuda where there is a GPU and nvcc, else cpp.
        evaluator: where kernels run: `local`, `local:cpu`, `local:cuda:0` or `spool:DIR`.
        preset: `default`, or `paper` for the published loop.
        options: how thorough each evaluation is.
        base_url: an OpenAI-compatible server, in place of OPENAI_BASE_URL.
        model_settings: of networked models: `{"temperature": 0.2}`.
        init: a live module's constructor arguments, where they cannot be found on it.
        task_file: where to write a live module's task; by default `tasks/NAME.py` in the home. `result.task` has it.
        progress: show the rounds while they happen; None: in a notebook only.
        home: in place of CUDAFORGE_HOME.

    Returns:
        The run as it then rests: done, or, where it waits for a `manual:` reply or Ctrl-C stopped it, suspended or
        stopped; `.message` says which, `.resume()` goes on.

    Raises:
        UsageError: a name or a number is not usable; nothing is stored. TaskError: the module cannot be captured.
        ModelError, EvaluatorError, StoreError: a failure of the machine or the model, after the run was stored as
            failed; `cf.load_run("last").resume()` goes on once the cause is mended.
    """
    return drive(_start(locals()), progress)


async def optimize_async(
    module_or_path: nn.Module | Task | Path | str,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    *,
    coder: str,
    judge: str | None = None,
    rounds: int = 10,
    budget_usd: float | None = None,
    budget_seconds: float | None = None,
    target: float | None = None,
    patience: int | None = None,
    language: str | Language | None = None,
    evaluator: str = "local",
    preset: str = "default",
    options: EvaluateOptions | None = None,
    base_url: str | None = None,
    model_settings: Mapping[str, Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    task_file: Path | str | None = None,
    home: Path | str | None = None,
) -> RunResult:
    """`optimize` on the caller's event loop. Where it is cancelled, the run is stored as stopped first."""
    driven = asyncio.ensure_future(_drive(_start(locals())))
    try:
        return await asyncio.shield(driven)
    except asyncio.CancelledError:
        driven.cancel()
        with suppress(Exception):  # the cancellation is what the caller asked for
            await driven
        raise


def evaluate(
    task: nn.Module | Task | Path | str,
    kernel: Kernel | UsableKernel | Path | str,
    *,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    options: EvaluateOptions | None = None,
    evaluator: str = "local",
    key: str | None = None,
    home: Path | str | None = None,
) -> Evaluation:
    """Builds, checks and times one kernel against a task, without any model; stores nothing.

    Args:
        task: a live nn.Module (with `inputs`, and `init` where needed), the path of a task file, or a Task.
        kernel: a Kernel, a folder with kernel.cu or kernel.cpp and model.py, or one .py file.
        inputs, init: as for `optimize`.
        options: how many trials, how long.
        evaluator: as for `optimize`.
        key: of an earlier call that a spool had not answered yet.
        home: in place of CUDAFORGE_HOME.

    Returns:
        The verdict with everything that it rests on; times in microseconds. A kernel that fails is a verdict.

    Raises:
        UsageError, TaskError, KernelError: what was given is not usable. EvaluatorError: the machine failed.
        Suspended: a spool has no answer yet; its `waiting_for` is the `key` to ask again with.
    """
    return background.run(
        lambda: evaluate_async(
            task, kernel, inputs=inputs, init=init, options=options, evaluator=evaluator, key=key, home=home
        )
    )


async def evaluate_async(
    task: nn.Module | Task | Path | str,
    kernel: Kernel | UsableKernel | Path | str,
    *,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    options: EvaluateOptions | None = None,
    evaluator: str = "local",
    key: str | None = None,
    home: Path | str | None = None,
) -> Evaluation:
    """`evaluate` on the caller's event loop."""
    evaluation, _ = await _look(task, kernel, inputs, init, options, evaluator, key, home, None)
    return evaluation


def profile(
    task: nn.Module | Task | Path | str,
    kernel: Kernel | UsableKernel | Path | str,
    *,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    metrics: str = "core",
    options: EvaluateOptions | None = None,
    evaluator: str = "local",
    key: str | None = None,
    home: Path | str | None = None,
) -> Profile:
    """Evaluates a kernel and, where it passes, looks at it with the profiler (Nsight Compute on a GPU).

    Args:
        metrics: the metric set, `core` or `paper`. The others are those of `evaluate`.

    Returns:
        Launches with their metrics, rules, hot source lines and roofline; `.unavailable` says where counters lack.

    Raises:
        KernelError: the kernel did not pass; `cf.evaluate` has the whole verdict. Others as `evaluate`.
    """
    return background.run(
        lambda: profile_async(
            task,
            kernel,
            inputs=inputs,
            init=init,
            metrics=metrics,
            options=options,
            evaluator=evaluator,
            key=key,
            home=home,
        )
    )


async def profile_async(
    task: nn.Module | Task | Path | str,
    kernel: Kernel | UsableKernel | Path | str,
    *,
    inputs: torch.Tensor | Sequence[Any] | None = None,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    metrics: str = "core",
    options: EvaluateOptions | None = None,
    evaluator: str = "local",
    key: str | None = None,
    home: Path | str | None = None,
) -> Profile:
    """`profile` on the caller's event loop."""
    evaluation, seen = await _look(task, kernel, inputs, init, options, evaluator, key, home, metrics)
    if seen is None:
        raise KernelError(
            f"Only a kernel that passes is profiled, and this one is {evaluation.verdict.value}: {evaluation.reason}",
            "cf.evaluate has the whole verdict.",
        )
    return seen


def runs(limit: int = 100, *, home: Path | str | None = None) -> list[RunResult]:
    """The stored runs, newest first, at most `limit`."""
    folder = _home(home)
    with _record(folder) as store:
        return [RunResult(run.id, folder) for run in store.runs(limit=limit)]


def load_run(run: str = "last", *, home: Path | str | None = None) -> RunResult:
    """A stored run by its id, by an unambiguous beginning of it, or the newest. UsageError where there is none."""
    folder = _home(home)
    with _record(folder) as store:
        return RunResult(wiring.find_run(store, run).id, folder)


def task_of(
    module_or_path: nn.Module | Task | Path | str,
    inputs: torch.Tensor | Sequence[Any] | None,
    init: Sequence[Any] | Mapping[str, Any] | None,
    home: Path,
    task_file: Path | str | None = None,
) -> Task:
    """The task that is meant; that of a live module is written down, in a file of the user's or of the home."""
    if isinstance(module_or_path, Task | Path | str):
        if inputs is not None or init is not None or task_file is not None:
            raise UsageError(
                "inputs, init and task_file belong to a live module.",
                "A task has its own get_inputs and get_init_inputs.",
            )
        return module_or_path if isinstance(module_or_path, Task) else Task.load(module_or_path)
    from cudaforge.capture import capture

    if inputs is None:
        raise UsageError(
            f"A {type(module_or_path).__name__} needs example inputs.", "Pass the tensors of its forward as inputs=..."
        )
    task = capture(module_or_path, inputs, init=init, name=Path(task_file).stem if task_file else None)
    _write(task, Path(task_file) if task_file else None, home)
    return task


def drive(result: RunResult, progress: bool | None) -> RunResult:
    """Drives a stored run to its next rest, blocking."""
    with _watching(progress, result):
        return background.run(lambda: _drive(result))


def in_a_notebook() -> bool:
    """Whether a notebook's kernel runs this process; asks nothing that is not imported already."""
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell is not None else None
    return current is not None and hasattr(current, "kernel")


# -- within -------------------------------------------------------------------------------------------------------


def _start(given: Mapping[str, Any]) -> RunResult:
    """Stores a new run of what `optimize` or its twin was given, under the names of their parameters."""
    home = _home(given["home"])
    spec = wiring.make_spec(
        task_of(given["module_or_path"], given["inputs"], given["init"], home, given["task_file"]),
        budget=budget(
            rounds=given["rounds"],
            usd=given["budget_usd"],
            seconds=given["budget_seconds"],
            target_speedup=given["target"],
            patience=given["patience"],
        ),
        settings=given["model_settings"],
        **{name: given[name] for name in ("coder", "judge", "language", "evaluator", "preset", "options", "base_url")},
    )
    with _record(home) as store:
        return RunResult(new_run(store, spec).id, home)


def new_run(store: SqliteStore, spec: RunSpec, **fields: Any) -> Run:
    """Stores a new run, and says what leaves the machine where that is due."""
    notice = wiring.first_network_notice(store, spec)
    run = wiring.make_run(spec).model_copy(update=fields)
    store.create_run(run)
    if notice:
        print(notice, file=sys.stderr)
    return run


def budget(**limits: Any) -> Budget:
    """The limits as a Budget. Raises UsageError."""
    try:
        return Budget(**limits)
    except ValidationError as error:
        first = error.errors()[0]
        name = {"usd": "budget_usd", "seconds": "budget_seconds", "target_speedup": "target"}
        field = str(first["loc"][0])
        raise UsageError(f"{name.get(field, field)}: {first['msg']}.", "None is no limit.") from None


async def _drive(result: RunResult) -> RunResult:
    store = wiring.open_store(result.home)
    try:
        await wiring.resume(result.id, store, result.home)
    except CudaForgeError as error:
        again = f'Then cf.load_run("{result.id}").resume() goes on.'
        error.hint = " ".join(filter(None, [error.hint, again]))
        raise
    except asyncio.CancelledError:  # before the graph had the run
        wiring.settle(store, result.id)
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
    finally:
        store.close()
    return result


async def _look(
    task: nn.Module | Task | Path | str,
    kernel: Kernel | UsableKernel | Path | str,
    inputs: torch.Tensor | Sequence[Any] | None,
    init: Sequence[Any] | Mapping[str, Any] | None,
    options: EvaluateOptions | None,
    evaluator: str,
    key: str | None,
    home: Path | str | None,
    metrics: str | None,
) -> tuple[Evaluation, Profile | None]:
    folder = _home(home)
    if isinstance(kernel, UsableKernel):
        kernel = kernel.kernel
    return await wiring.look(
        task_of(task, inputs, init, folder),
        kernel if isinstance(kernel, Kernel) else Kernel.load(Path(kernel)),
        evaluator=evaluator,
        home=folder,
        key=key or f"py-{secrets.token_hex(6)}",
        options=options or EvaluateOptions(),
        metrics=metrics,
    )


def _write(task: Task, file: Path | None, home: Path) -> Path:
    """Writes a captured task where it does not replace anything of the user's, and returns the path."""
    from cudaforge.capture import HEAD

    chosen = file or home / "tasks" / f"{task.name}.py"
    if chosen.exists() and chosen.read_text(encoding="utf-8", errors="replace") != task.source:
        if file is None:  # another module of the same name
            chosen = chosen.with_name(f"{task.name}_{task.id}.py")
        elif not chosen.read_text(encoding="utf-8", errors="replace").startswith(f'"""{HEAD}'):
            raise UsageError(f"task_file: {chosen} is not a file that CudaForge wrote.", "Name a new file.")
    try:
        chosen.parent.mkdir(parents=True, exist_ok=True)
        chosen.write_text(task.source, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The task cannot be written to {chosen}: {error.strerror}.", "Pass task_file=...") from None
    return chosen


def _home(home: Path | str | None) -> Path:
    return wiring.resolve_home(Path(home) if home is not None else None)


def _record(home: Path) -> AbstractContextManager[SqliteStore]:
    return closing(wiring.open_record(home))


def _watching(progress: bool | None, result: RunResult) -> AbstractContextManager[object]:
    """What shows a run while it goes on; by default in a notebook alone."""
    if not (in_a_notebook() if progress is None else progress):
        return nullcontext()
    watched: AbstractContextManager[object] = _watch(result)
    return watched


@contextmanager
def _watch(result: RunResult) -> Iterator[None]:
    with _record(result.home) as store, import_module("cudaforge.notebook.progress").watch(store, result.id):
        yield
