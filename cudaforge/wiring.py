"""The composition root: the only place that builds adapters and connects them to the run.

A door (command line, service, notebook) names what it wants as text (`openai:NAME`, `spool:DIR`) and gets objects
behind the ports. Every import of an adapter stands inside a function, so that a machine needs only the libraries
of what it uses: an evaluator host has neither langgraph nor openai nor sqlmodel.
"""

from __future__ import annotations

import os
import secrets
import shutil
import string
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cudaforge.errors import UsageError

if TYPE_CHECKING:
    from cudaforge.evaluation import EvaluateOptions, Evaluation
    from cudaforge.graph import Context
    from cudaforge.jobs import SingleEvaluation
    from cudaforge.kernel import Kernel, Language
    from cudaforge.llm.settings import Access
    from cudaforge.ports import ChatModel, Evaluator, Store
    from cudaforge.store.gc import Collected
    from cudaforge.store.pack import Packed
    from cudaforge.store.sqlite import SqliteStore
    from cudaforge.task import Task
    from cudaforge.trace import Budget, Run, RunSpec, RunState
    from cudaforge_profiling.types import Profile

CHECKPOINTS = "checkpoints.db"
PROVIDERS_HINT = "Use openai:NAME (any OpenAI-compatible server), recorded:FOLDER or manual: (a person answers)."
EVALUATORS_HINT = "Use local, local:cpu, local:cuda:0 or spool:DIR."
_ID_ALPHABET = string.digits + string.ascii_lowercase


def open_store(home: Path | None = None) -> Store:
    """Opens the record in `home` (default: CUDAFORGE_HOME), creating and migrating it. Raises StoreError."""
    return open_record(home)


def open_record(home: Path | None = None) -> SqliteStore:
    """The same with what lists, the queue and tokens ask beyond the Store port."""
    from cudaforge.store.sqlite import SqliteStore

    return SqliteStore(resolve_home(home))


def resolve_home(home: Path | None = None) -> Path:
    """The given home, else CUDAFORGE_HOME, else ~/.cudaforge."""
    from cudaforge.store.home import home_dir

    return Path(home).expanduser().absolute() if home is not None else home_dir()


def provider_of(spec: str) -> tuple[str, str]:
    """Splits `provider:name`. Raises UsageError where there is no known provider."""
    provider, colon, name = spec.partition(":")
    if not colon and provider != "manual":
        raise UsageError(f"Model {spec!r} names no provider.", PROVIDERS_HINT)
    if provider not in ("openai", "recorded", "manual"):
        raise UsageError(f"Model {spec!r} has the unknown provider {provider!r}.", PROVIDERS_HINT)
    if provider != "manual" and not name:
        raise UsageError(f"Model {spec!r} lacks its name.", PROVIDERS_HINT)
    return provider, name


def is_networked(spec: str) -> bool:
    """Whether this model is reached over a network, so that prompts leave the machine."""
    return provider_of(spec)[0] == "openai"


def make_model(spec: str, settings: Mapping[str, Any] | None = None) -> ChatModel:
    """Builds the model behind `provider:name`.

    `settings` reach networked models only (`base_url`, `temperature`, ...). Raises UsageError for an unknown
    provider, and what the adapter raises where a key or a recording is missing.
    """
    provider, name = provider_of(spec)
    if provider == "openai":
        from cudaforge.llm.openai import OpenAIModel

        return OpenAIModel(name, **(settings or {}))
    if provider == "recorded":
        from cudaforge.llm.recorded import RecordedModel

        return RecordedModel(Path(name).expanduser().absolute())
    from cudaforge.llm.manual import ManualModel

    return ManualModel()


def evaluator_of(spec: str) -> tuple[str, str]:
    """Splits `local`, `local:cuda:0`, `spool:DIR` into kind and place. Raises UsageError for anything else."""
    kind, _, where = spec.partition(":")
    if kind == "local":
        if where not in ("", "auto", "cpu", "cuda") and not where.removeprefix("cuda:").isdecimal():
            raise UsageError(f"Evaluator {spec!r} names no device.", EVALUATORS_HINT)
        return kind, where or "auto"
    if kind == "spool":
        if not where:
            raise UsageError(f"Evaluator {spec!r} lacks its folder.", EVALUATORS_HINT)
        return kind, str(Path(where).expanduser().absolute())
    raise UsageError(f"Evaluator {spec!r} is unknown.", EVALUATORS_HINT)


def make_evaluator(spec: str, home: Path, *, patient: bool = False) -> Evaluator:
    """Builds the evaluator behind `local`, `local:cpu`, `local:cuda:0` or `spool:DIR`. Raises UsageError.

    `patient`: a spool is waited for as long as it takes, rather than suspending the run.
    """
    kind, where = evaluator_of(spec)
    if kind == "local":
        from cudaforge.engine.local import LocalEvaluator

        return LocalEvaluator(home, device=where)
    from cudaforge.engine.spool import SpoolEvaluator

    return SpoolEvaluator(Path(where), patient=patient)


def find_nvcc() -> Path | None:
    """nvcc as CUDACXX names it, on PATH, in CUDA_HOME or in /usr/local/cuda."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [os.environ.get("CUDACXX"), shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((Path(c) for c in candidates if c and os.access(c, os.X_OK)), None)


def gpu_count() -> int:
    """How many NVIDIA GPUs the driver shows; 0 without a driver. Does not import torch."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def choose_language(name: str | None, evaluator: str) -> Language:
    """The kernel language of a run: as asked, else cuda where a GPU and nvcc are there, else cpp.

    A spool hides its machine, so there it has to be asked for. Raises UsageError also where the evaluator's
    device cannot run the language.
    """
    from cudaforge.kernel import Language

    kind, where = evaluator_of(evaluator)
    on_cpu, on_gpu = kind == "local" and where == "cpu", kind == "local" and where.startswith("cuda")
    if name is None:
        if kind == "spool":
            raise UsageError(
                "The language cannot be guessed for a spool, whose machine is elsewhere.",
                "Pass --language cuda, cpp, triton or module.",
            )
        on_gpu = on_gpu or (not on_cpu and gpu_count() > 0 and find_nvcc() is not None)
        return Language.CUDA if on_gpu else Language.CPP
    try:
        language = Language(name)
    except ValueError:
        raise UsageError(f"Language {name!r} is unknown.", "Use cuda, cpp, triton or module.") from None
    if (language is Language.CUDA and on_cpu) or (language is Language.CPP and on_gpu):
        raise UsageError(f"Evaluator {evaluator!r} cannot run {language.value} kernels.", EVALUATORS_HINT)
    return language


def fit_evaluator(evaluator: str, language: Language) -> str:
    """`local` pinned to the device that the language runs on: C++ on a machine with a GPU is measured on the CPU.

    Other evaluators and languages stay as they are, with their folders absolute, so that a run can be resumed from
    anywhere. Raises UsageError for an evaluator that is unknown.
    """
    kind, where = evaluator_of(evaluator)
    if kind == "local" and where == "auto":
        where = {"cpp": "cpu", "cuda": "cuda", "triton": "cuda"}.get(language.value, "")
    return f"{kind}:{where}" if where else kind


def new_id(kind: str) -> str:
    """`kind`, one letter, and 10 characters from 0-9a-z: `r` for a run, `e` for a single evaluation."""
    return kind + "".join(secrets.choice(_ID_ALPHABET) for _ in range(10))


def make_spec(
    task: Task,
    *,
    coder: str,
    judge: str | None = None,
    language: str | None = None,
    evaluator: str = "local",
    budget: Budget | None = None,
    preset: str = "default",
    switches: Mapping[str, Any] | None = None,
    options: EvaluateOptions | None = None,
    settings: Mapping[str, Any] | None = None,
    base_url: str | None = None,
) -> RunSpec:
    """What a run is made of, by the names that every door takes. The Judge is the Coder where it is not named.

    `switches` change single fields of the preset; None changes nothing. Raises UsageError for a name that is unknown.
    """
    from cudaforge.evaluation import EvaluateOptions
    from cudaforge.trace import PRESETS, Budget, RunSpec

    if preset not in PRESETS:
        raise UsageError(f"Preset {preset!r} is unknown.", f"Use {' or '.join(PRESETS)}.")
    chosen = choose_language(language, evaluator)
    return RunSpec(
        task=task,
        language=chosen,
        coder=coder,
        judge=judge or coder,
        evaluator=fit_evaluator(evaluator, chosen),
        budget=budget or Budget(),
        preset=PRESETS[preset].changed(**(switches or {})),
        options=options or EvaluateOptions(),
        model_settings={**(settings or {}), **({"base_url": base_url} if base_url else {})},
    )


def first_network_notice(store: Store, spec: RunSpec) -> str:
    """What leaves the machine, for the first run of this home with a networked model; empty for later ones."""
    networked = sorted({model for model in (spec.coder, spec.judge) if is_networked(model)})
    if not networked:
        return ""
    earlier = store.runs(limit=1_000_000)
    if any(is_networked(m) for run in earlier for m in (run.spec.coder, run.spec.judge)):
        return ""
    server = networked_access(spec.model_settings.get("base_url")).base_url
    return (
        f"What leaves this machine: prompts to {', '.join(networked)} at {server}. They hold the task's source and "
        "notes, the kernels, compiler errors, correctness differences, measured times, profiles and the device's "
        "data. Nothing else is sent, there is no telemetry. (Said once for each home folder.)"
    )


def create_run(spec: RunSpec, store: Store) -> Run:
    """Stores a new run of `spec`, not yet started. Its models are built once first, so a mistake stores nothing."""
    run = make_run(spec)
    store.create_run(run)
    return run


def make_run(spec: RunSpec) -> Run:
    """A run of `spec` under a new id, not stored. Raises what `make_model` raises."""
    from cudaforge.trace import Run

    for model in {spec.coder, spec.judge}:
        make_model(model, spec.model_settings)
    names = {"coder": _absolute(spec.coder), "judge": _absolute(spec.judge)}
    return Run(id=new_id("r"), spec=spec.model_copy(update=names))


def _absolute(model: str) -> str:
    """A recording's folder made absolute, so that the run can be resumed from anywhere."""
    provider, name = provider_of(model)
    return f"{provider}:{Path(name).expanduser().absolute()}" if provider == "recorded" else model


def find_run(store: Store, reference: str) -> Run:
    """The run with this id, with this unambiguous beginning of an id, or the newest for `last`.

    Raises UsageError where there is none or more than one.
    """
    if reference == "last":
        newest = store.runs(limit=1)
        if not newest:
            raise UsageError("There is no run yet.", "Start one with `cudaforge optimize TASK` or `cudaforge demo`.")
        return newest[0]
    if exact := store.run(reference):
        return exact
    found = [run for run in store.runs(limit=1_000_000) if reference and run.id.startswith(reference)]
    if not found:
        raise UsageError(f"There is no run {reference!r}.", "`cudaforge runs` lists them.")
    if len(found) > 1:
        some = ", ".join(run.id for run in found[:4])
        raise UsageError(f"{reference!r} fits {len(found)} runs: {some}.", "Give more of the id.")
    return found[0]


def make_context(run: Run, store: Store, evaluator: Evaluator) -> Context:
    """Connects what a run needs: its models by name, the policy, and the given store and evaluator."""
    from cudaforge.graph import Context
    from cudaforge.search.chain import ChainPolicy

    coder = make_model(run.spec.coder, run.spec.model_settings)
    same = run.spec.judge == run.spec.coder
    judge = coder if same else make_model(run.spec.judge, run.spec.model_settings)
    return Context(store=store, coder=coder, judge=judge, evaluator=evaluator, policy=ChainPolicy())


async def resume(
    run_id: str,
    store: Store,
    home: Path,
    evaluator: Evaluator | None = None,
    cancelled_as: Callable[[], RunState] | None = None,
) -> Run:
    """Starts or continues a stored run and returns it as it then stands: done, suspended, stopped or failed.

    `evaluator` replaces the one that the run names; the caller closes it. `cancelled_as`: see graph.drive. Raises
    UsageError for an unknown run, and ModelError, EvaluatorError or StoreError after the run has been stored as
    failed.
    """
    from cudaforge.graph import drive
    from cudaforge.trace import RunState

    run = find_run(store, run_id)
    own = evaluator if evaluator is not None else make_evaluator(run.spec.evaluator, home)
    stopped = cancelled_as or (lambda: RunState.STOPPED)
    try:
        return await drive(run.id, make_context(run, store, own), home / CHECKPOINTS, stopped)
    finally:
        if evaluator is None:
            await own.close()


async def optimize(spec: RunSpec, store: Store, home: Path, evaluator: Evaluator | None = None) -> Run:
    """Creates a run of `spec` and drives it; see `resume`."""
    return await resume(create_run(spec, store).id, store, home, evaluator)


def settle(store: Store, run_id: str) -> None:
    """Stores an interrupted run as stopped where the graph itself had no chance to."""
    from cudaforge.trace import RunFinished, RunState

    current = store.run(run_id)
    if current is not None and current.state is RunState.RUNNING:
        store.save_run(current.model_copy(update={"state": RunState.STOPPED}))
        store.append(RunFinished(run_id=run_id, state=RunState.STOPPED, reason="interrupted"))


def is_driven(run_id: str, home: Path) -> bool:
    """Whether some process drives this run now."""
    from cudaforge.graph import is_driven

    return is_driven(home / CHECKPOINTS, run_id)


async def look(
    task: Task,
    kernel: Kernel,
    *,
    evaluator: str,
    home: Path,
    key: str,
    options: EvaluateOptions,
    metrics: str | None = None,
) -> tuple[Evaluation, Profile | None]:
    """Evaluates a kernel without any run, under `KEY/evaluate/0`, then profiles it under `KEY/profile/0` where it
    passes and `metrics` names a metric set. Stores nothing. Raises what the Evaluator port raises; a Suspended names
    `key`, under which the same call finds the result later."""
    from cudaforge.errors import Suspended

    with_evaluator = make_evaluator(fit_evaluator(evaluator, kernel.language), home)
    try:
        return await look_with(with_evaluator, task, kernel, key=key, options=options, metrics=metrics)
    except Suspended as waiting:
        raise Suspended(
            waiting.message, f"Start an evaluator, then ask again with key {key}.", waiting_for=key
        ) from None
    finally:
        await with_evaluator.close()


async def look_with(
    evaluator: Evaluator,
    task: Task,
    kernel: Kernel,
    *,
    key: str,
    options: EvaluateOptions,
    metrics: str | None = None,
    ordinal: int = 0,
) -> tuple[Evaluation, Profile | None]:
    """`look` with an evaluator that is there already and stays open; under `KEY/evaluate/ORDINAL` and so on."""
    from cudaforge.evaluation import EvaluateRequest, ProfileRequest

    asked: dict[str, Any] = {"task": task, "options": options, "kernel": kernel}
    evaluation = await evaluator.evaluate(EvaluateRequest(key=f"{key}/evaluate/{ordinal}", **asked))
    if metrics is None or not evaluation.passed:
        return evaluation, None
    named = {"key": f"{key}/profile/{ordinal}", "metric_set": metrics, "time_us": evaluation.first_us}
    return evaluation, await evaluator.profile(ProfileRequest(**named, **asked))


async def measure(single: SingleEvaluation, store: SqliteStore, evaluator: Evaluator, ordinal: int) -> SingleEvaluation:
    """Carries out a single evaluation, and the profile of a kernel that passes, and returns it done; stores nothing
    but the profile's report. `ordinal` makes the request's key: another try is another request.

    Raises what the Evaluator port raises.
    """
    from cudaforge.jobs import SingleState

    evaluation, profile = await look_with(
        evaluator,
        single.task,
        single.kernel,
        key=single.id,
        options=single.options,
        metrics=single.metrics,
        ordinal=ordinal,
    )
    found: dict[str, Any] = {"state": SingleState.DONE, "evaluation": evaluation, "error": ""}
    if profile is not None:
        if profile.report is not None:
            found["report"] = store.put_report(profile.report)
        found["profile"] = profile.model_copy(update={"report": None})
    return single.model_copy(update=found)


def recordings(folder: Path | None = None) -> dict[str, Path]:
    """Recordings of models' replies by name: the examples', and those in `folder`, which come first."""
    from cudaforge import examples

    places = [folder] if folder is not None else []
    with suppress(UsageError):  # an installation without examples
        places.append(examples.folder() / "recordings")
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if (path / "recording.toml").is_file():
                    found.setdefault(path.name, path)
    return found


def serve_spool(
    directory: Path, device: str, home: Path, *, drain: bool, lease_s: float, name: str, say: Callable[[str], None]
) -> int:
    """Serves a spool folder with this machine's evaluator until it is drained or a signal comes; an exit code.

    Needs only what an evaluator host has: no langgraph, openai, sqlmodel or fastapi.
    """
    from cudaforge.engine.local import LocalEvaluator
    from cudaforge.engine.spool import run_server

    _, where = evaluator_of("local" if device == "auto" else f"local:{device}")
    evaluator = LocalEvaluator(home, where)
    return run_server(directory, evaluator, drain=drain, slots=evaluator.slots, lease_s=lease_s, name=name, say=say)


def pack_home(home: Path | None, output: Path) -> Packed:
    """Copies a home consistently to `output`, a .tar.gz or a new folder."""
    from cudaforge.store.pack import pack

    return pack(resolve_home(home), output)


def collect_garbage(home: Path | None, older_than_days: float, dry_run: bool) -> Collected:
    """Deletes old profiler reports and cached builds of a home."""
    from cudaforge.store.gc import collect

    return collect(resolve_home(home), older_than_days, dry_run)


def isolation_layers() -> tuple[str, ...]:
    """The layers of confinement in force for candidates here; one that is missing begins with `no ` and says why."""
    from cudaforge.engine.sandbox import isolation

    return isolation()


def networked_access(base_url: str | None = None) -> Access:
    """Whether `openai:` models can be asked from here and where they are; never the key."""
    from cudaforge.llm.settings import openai_access, public_url

    access = openai_access()
    return access.model_copy(update={"base_url": public_url(base_url)}) if base_url else access
