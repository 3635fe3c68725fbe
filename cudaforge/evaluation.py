"""Evaluation: what the machine found out about a kernel. Requests and results of the Evaluator port.

Invalid states cannot be built: timing and speedup exist only on a PASSED evaluation, a verdict other than
PASSED has a reason. Everything is JSON, so that a spool or a cluster carries it unchanged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cudaforge.displayed import Displayed
from cudaforge.kernel import Kernel
from cudaforge.task import Task
from cudaforge_profiling.types import Device, Frozen, Profile, Remark


class Verdict(StrEnum):
    """What the machine says of a kernel."""

    PASSED = "PASSED"
    BUILD_FAILED = "BUILD_FAILED"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    INCORRECT = "INCORRECT"
    REJECTED = "REJECTED"
    INFRASTRUCTURE = "INFRASTRUCTURE"
    """Our failure or the machine's; says nothing about the kernel."""


class Diagnostic(Frozen):
    """One message of a compiler or of the running kernel, at a place in a real file of the kernel."""

    severity: Literal["error", "warning", "note"]
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source_line: str = ""
    tool: str = ""
    """nvcc, ptxas, g++, python, cuda."""


class Build(Frozen):
    """How the binary that ran was made."""

    command: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False
    binary_sha256: str = ""
    compiler: str = ""
    entry_functions: tuple[str, ...] = ()
    """Mangled names of the GPU kernels in the binary, for attribution."""
    remarks: tuple[Remark, ...] = ()


class OutputError(Frozen):
    """How far one output of one trial was off."""

    output: str
    """Its place in what forward returns: `0`, `1.hidden`."""
    mismatched: int
    total: int
    max_abs: float | None = None
    max_rel: float | None = None
    reference_max_abs: float | None = None
    """The error that PyTorch's own dtype makes against float64."""
    first: tuple[tuple[tuple[int, ...], float | None, float | None], ...] = ()
    """The first mismatching places: index, expected, got (None stands for NaN)."""
    pattern: str = ""
    """In plain words where the errors are: `all rows from 4080 on`, `every 4th element`."""


class Correctness(Frozen):
    """What the comparison over all trials and workloads found."""

    trials: int
    passed: int
    tolerance: str
    errors: tuple[OutputError, ...] = ()
    """Of the first failing trial; empty where all passed."""
    worst_ratio: float | None = None
    """Largest error / allowed error over all trials; below 1 where all passed."""
    flags: tuple[str, ...] = ()
    """What a reader must know: float32 reference, a suspected race, a flagged task."""


class Interval(Frozen):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Speedup(Frozen):
    """Time of the baseline over time of the kernel; above 1 is faster. None where the baseline does not exist."""

    eager: Interval
    compile: Interval | None = None


class Samples(Frozen):
    """Raw times of one thing on one workload, in microseconds a call."""

    median_us: float
    low_us: float
    high_us: float
    """95 % interval of the median."""
    samples_us: tuple[float, ...]
    clock: str
    """In words: the `clock` of a class of engine/bench.py."""
    calls_per_sample: int = 1
    sessions: tuple[int, ...] = ()
    """A verification's: how many of the samples each session of fresh processes took, in order. Empty: one session."""


class WorkloadBaseline(Frozen):
    """Times of the reference on one workload."""

    workload: str
    eager: Samples
    compile: Samples | None = None
    compile_mode: str = ""
    compile_times_us: dict[str, float] = {}
    """Median of each mode that was tried."""
    compile_error: str = ""
    inputs: tuple[str, ...] = ()
    """`float32[4096, 2048]` for each argument, for prompts."""
    outputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    bytes: int = 0
    """Inputs, parameters and outputs, each once."""
    output_bytes: int = 0
    live_bytes: int = 0
    """Bytes of the inputs that were shown to matter."""
    flops: int | None = None
    floor_us: float | None = None
    bound: Literal["memory", "compute", "unknown"] = "unknown"


class Baseline(Displayed, Frozen):
    """The reference on this device: what a kernel is measured against."""

    task: str
    device: Device
    workloads: tuple[WorkloadBaseline, ...]
    versions: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    """What admission found, and what else a reader of numbers on this task must know."""
    stages_s: dict[str, float] = {}
    isolation: tuple[str, ...] = ()
    cached: bool = False

    @property
    def eager_us(self) -> float:
        """Geometric mean over the workloads, microseconds."""
        return geometric_mean([w.eager.median_us for w in self.workloads])

    @property
    def compile_us(self) -> float | None:
        """Geometric mean over the workloads, microseconds; None where torch.compile failed on one."""
        times = [w.compile.median_us for w in self.workloads if w.compile]
        return geometric_mean(times) if len(times) == len(self.workloads) else None

    @property
    def floor_us(self) -> float | None:
        """Geometric mean of the speed-of-light floors, microseconds."""
        floors = [w.floor_us for w in self.workloads if w.floor_us]
        return geometric_mean(floors) if len(floors) == len(self.workloads) else None


class Share(Frozen):
    """One function's share, 0..1, of what was attributed."""

    name: str
    kind: str
    """own, library, or free (allocating, copying, filling)."""
    share: float


class Attribution(Frozen):
    """Whose code did the work, as shares of device time (GPU) or of samples (CPU); they add up to 1 or are all 0."""

    how: str
    own: float
    library: float
    free: float
    top: tuple[Share, ...] = ()
    launches: int = 0
    """Kernels and copies of one call (GPU)."""
    traced_us: float = 0.0
    """GPU: time of one traced call in which any of its kernels ran. CPU: processor time of a call while watched."""
    timed_cpu_us: float = 0.0
    """CPU: processor time of a call when timed."""
    samples: float = 0
    """Where nothing but samples is known: how many fell into own, library or free code (CPU)."""


class WorkloadTiming(Frozen):
    """A kernel and its baselines on one workload."""

    workload: str
    kernel: Samples
    eager: Samples
    compile: Samples | None = None
    speedup: Speedup
    attribution: Attribution | None = None
    aids: dict[str, Interval] = {}
    """Further medians in microseconds a call with their spread, none of which counts: `events_us` (the process's own
    events), `enqueue_us` (what queueing a call costs the host), `warm_us` (the same inputs again and again),
    `end_to_end_us` (one call by itself, with waking up, launching and waiting)."""


class SeedCommitment(Frozen):
    """SHA-256 of a secret seed, published with the verdict; the seed itself follows when the evaluation is done."""

    sha256: str
    seed: int | None = None


class Evaluation(Displayed, Frozen):
    """The verdict on one kernel, and everything it rests on."""

    verdict: Verdict
    reason: str = ""
    """One sentence; empty only where PASSED."""
    rule: str | None = None
    """REJECTED: the rule of fair play. TIMEOUT: the stage."""
    task: str
    kernel: str
    device: Device
    speedup: Speedup | None = None
    """Geometric mean over the workloads."""
    time_us: float | None = None
    """Geometric mean over the workloads of the median time of a call."""
    share_of_floor: float | None = None
    correctness: Correctness | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    build: Build | None = None
    workloads: tuple[WorkloadTiming, ...] = ()
    stages_s: dict[str, float] = {}
    isolation: tuple[str, ...] = ()
    """Layers of confinement in force; `no network namespace: ...` names one that the machine cannot give."""
    seeds: tuple[SeedCommitment, ...] = ()
    versions: dict[str, str] = {}
    output_tail: str = ""
    """The end of what the candidate printed. Untrusted text."""

    @model_validator(mode="after")
    def _states_fit(self) -> Evaluation:
        if self.verdict is Verdict.PASSED:
            if self.speedup is None or self.time_us is None or self.correctness is None:
                raise ValueError("PASSED needs correctness, time and speedup")
        else:
            if self.speedup is not None or self.time_us is not None or self.workloads:
                raise ValueError(f"{self.verdict} cannot have a time")
            if not self.reason:
                raise ValueError(f"{self.verdict} needs a reason")
        return self

    @property
    def passed(self) -> bool:
        """Whether the kernel is right, built and timed."""
        return self.verdict is Verdict.PASSED

    @property
    def first_us(self) -> float | None:
        """Median time of a call on the first workload, which is the one that is profiled, in microseconds."""
        return self.workloads[0].kernel.median_us if self.workloads else self.time_us


class Verification(Displayed, Frozen):
    """The winner, measured again in fresh processes with interleaved blocks; the speedup that counts."""

    evaluation: Evaluation
    """PASSED, with the verified speedup and all raw blocks; or the verdict that the winner got instead."""
    aa: Interval | None = None
    """A/A control: the baseline against itself, interleaved the same way; a win must clear it."""
    win: bool = False
    """The interval over eager clears both 1 and the A/A noise."""
    processes: int = 0
    dropped_blocks: int = 0
    """Blocks that were disturbed and measured again."""
    note: str = ""


class EvaluateOptions(Frozen):
    """How thorough one evaluation is."""

    trials: int = Field(5, ge=1, le=64)
    time_budget_s: float = Field(0.5, gt=0, le=60)
    """Device time for the samples of one workload; ends earlier when the interval is inside +-1 %."""
    build_timeout_s: float = Field(300, gt=0)
    run_timeout_s: float = Field(120, gt=0)
    """For each of load, check and timing."""
    strict_isolation: bool = False
    compile_baseline: bool = True
    """Measure torch.compile, too; without it, speedups are over eager alone."""


class _Request(Frozen):
    key: str
    """Unique per piece of work; asking twice with one key gives one result."""
    task: Task
    options: EvaluateOptions = EvaluateOptions()


class BaselineRequest(_Request):
    """Measure the reference (eager, torch.compile), its bytes, operations and floor."""

    kind: Literal["baseline"] = "baseline"


class EvaluateRequest(_Request):
    """Build, check and time one kernel."""

    kind: Literal["evaluate"] = "evaluate"
    kernel: Kernel


class ProfileRequest(_Request):
    """Look at one passing kernel with the profiler."""

    kind: Literal["profile"] = "profile"
    kernel: Kernel
    metric_set: str = "core"
    time_us: float | None = None
    """The kernel's time as evaluated, for the roofline."""


class VerifyRequest(_Request):
    """Measure the winner again, in `processes` fresh processes."""

    kind: Literal["verify"] = "verify"
    kernel: Kernel
    processes: int = Field(3, ge=1, le=16)


Request = Annotated[BaselineRequest | EvaluateRequest | ProfileRequest | VerifyRequest, Field(discriminator="kind")]
Result = Baseline | Evaluation | Profile | Verification


def geometric_mean(values: list[float]) -> float:
    """Geometric mean of positive numbers."""
    product = 1.0
    for value in values:
        product *= value ** (1.0 / len(values))
    return product
