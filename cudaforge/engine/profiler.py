"""Profiles a kernel: ncu around a candidate's process on a GPU; compiler remarks and achieved rates everywhere."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cudaforge.engine.builder import Built, settings_for
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, ReferenceHost
from cudaforge.engine.machine import write_atomically
from cudaforge.engine.sandbox import ChildTimeout
from cudaforge.engine.waiting import Waiting, new_folder
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import Baseline, ProfileRequest
from cudaforge_profiling.metrics import parse_query_metrics, resolve
from cudaforge_profiling.ncu import command, parse_failure, parse_version
from cudaforge_profiling.report import ReportError, read
from cudaforge_profiling.roofline import roofline
from cudaforge_profiling.types import Device, Profile

RANGE = "cudaforge_profile"
NCU_TIMEOUT_S = 300.0
SPARE = 2
"""Processes that wait, once a profile was asked for: to start one takes longer than to profile a kernel."""
MAX_LAUNCHES = 64
"""Launches of one call that are looked at; a kernel that launches more is summed up by its first ones."""
MAX_REPORT = 8 << 20


def from_build(request: ProfileRequest, built: Built, baseline: Baseline, device: Device) -> Profile:
    """What is known without a profiler: the roofline from bytes, operations and the measured time; remarks."""
    first = baseline.workloads[0]
    dtype = next((i.split("[")[0] for i in first.inputs if i.startswith(("float", "bfloat"))), "float32")
    if request.task.meta.allow_tf32 and dtype == "float32" and device.kind == "cuda":
        dtype = "tf32"
    return Profile(
        kernel=request.kernel.id,
        device=device,
        metric_set=request.metric_set,
        tool="compiler remarks and achieved rates",
        roofline=roofline(first.bytes, first.flops, dtype, device.ceilings, request.time_us),
        remarks=built.build.remarks,
        unavailable="those of a CPU are not read in this version" if device.kind == "cpu" else "",
    )


@dataclass(frozen=True)
class Setup:
    """How ncu is called for a metric set on this device. `names`: what is asked for; `notes`: what was substituted."""

    ncu: str
    version: str
    names: tuple[str, ...]
    notes: tuple[str, ...]
    source: bool

    def command(self, report: Path) -> tuple[str, ...]:
        """The command line up to the program."""
        return tuple(
            command(self.ncu, report, self.names, nvtx_range=RANGE, source=self.source, launch_count=MAX_LAUNCHES)
        )


class Profilers:
    """ncu on one device. Once a metric set was asked for, processes for the next kernels wait under ncu."""

    def __init__(self, device: Device, where: str, cache: Path) -> None:
        self.device, self.where, self.cache = device, where, cache
        self.setups: dict[str, Setup] = {}
        self.waiting: dict[str, list[Waiting]] = {}

    def setup(self, metric_set: str) -> Setup | str:
        """How ncu is called, or why it cannot be."""
        if metric_set not in self.setups:
            ncu = shutil.which("ncu")
            if ncu is None:
                return "ncu (Nsight Compute) is not installed"
            version = parse_version(_output([ncu, "--version"]))
            available = parse_query_metrics(_queried(ncu, version, self.device, self.cache))
            names, notes = resolve(metric_set, available)
            self.setups[metric_set] = Setup(ncu, version, tuple(names), tuple(notes), metric_set != "paper")
        return self.setups[metric_set]

    def ready(self, metric_set: str, *, settle: bool = False) -> None:
        """Starts processes for the next kernels; with `settle`, waits until one has imported torch. No device is
        touched."""
        setup = self.setup(metric_set)
        if isinstance(setup, str):
            return
        waits = self.waiting.setdefault(metric_set, [])
        for dead in [one for one in waits if not one.alive]:
            waits.remove(dead)
            dead.close()
        while len(waits) < (1 if settle else SPARE):
            folder = new_folder(self.cache / "profiles")
            waits.append(Waiting(folder, self.where, setup.command(_report(folder)), settings_for(self.device)))
        if settle:
            waits[0].settle()

    def take(self, metric_set: str) -> Waiting:
        """The process that has waited longest; others start in its place. The caller closes it."""
        self.ready(metric_set)
        first = self.waiting[metric_set].pop(0)
        with contextlib.suppress(EvaluatorError):  # then the next profile starts its own, or says why not
            self.ready(metric_set)
        return first

    def close(self) -> None:
        """Ends what waits. Idempotent."""
        for one in (one for waits in self.waiting.values() for one in waits):
            one.close()
        self.waiting = {}


def _report(folder: Path) -> Path:
    return folder / "writes" / "report.ncu-rep"


def with_ncu(
    profile: Profile, request: ProfileRequest, built: Built, reference: ReferenceHost, profilers: Profilers
) -> Profile:
    """Adds what ncu says of the launches within one call. Never fails: what is missing is said in `unavailable`."""
    setup = profilers.setup(request.metric_set)
    if isinstance(setup, str):
        return profile.model_copy(update={"unavailable": setup})
    notes, tool = setup.notes, f"ncu {setup.version}"
    waits = profilers.take(request.metric_set)
    report = _report(waits.folder)
    candidate: CandidateHost | None = None
    try:
        candidate = CandidateHost(request.kernel, built, reference, NCU_TIMEOUT_S, waiting=waits, timed=False)
        candidate.give_parameters()
        candidate.give_inputs(range(1))
        candidate.profile(RANGE)
        # ncu writes the report when the process under it has ended; it ends when the channel closes.
        candidate.child.channel.close()
        candidate.child.wait(NCU_TIMEOUT_S)
        seen = read(
            report,
            entry_functions=built.build.entry_functions,
            metrics=setup.names,
            sources=dict(request.kernel.files),
        )
        data = report.read_bytes()
    except (CandidateFailed, ChildTimeout) as failure:
        why = parse_failure(waits.child.output) or f"the profiled run failed: {failure}"
        return profile.model_copy(update={"unavailable": why, "notes": notes, "tool": tool})
    except (ReportError, OSError) as error:
        why = parse_failure(waits.child.output) or str(error)
        return profile.model_copy(update={"unavailable": why, "notes": notes, "tool": tool})
    finally:
        if candidate is not None:
            candidate.close()
        waits.close()
    if len(data) > MAX_REPORT:
        notes = (*notes, f"the report of {len(data) >> 20} MiB was too large to keep")
    return profile.model_copy(
        update={
            "launches": seen.launches,
            "hot_lines": seen.hot_lines,
            "notes": (*notes, *seen.notes),
            "tool": tool,
            "report": data if len(data) <= MAX_REPORT else None,
        }
    )


def _queried(ncu: str, version: str, device: Device, cache: Path) -> str:
    """The names of the metrics that this chip has; asked once per chip and ncu."""
    name = "".join(c if c.isalnum() else "-" for c in f"{device.name}-{version}")
    path = cache / "ncu-metrics" / f"{name}.txt"
    if path.is_file():
        return path.read_text()
    text = _output([ncu, "--query-metrics"])
    if parse_query_metrics(text):  # a failed query is asked again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return text


def _output(arguments: list[str]) -> str:
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
