"""Profiles a kernel: ncu around a candidate's process on a GPU; compiler remarks and achieved rates everywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cudaforge.engine.builder import Built
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, ReferenceHost
from cudaforge.engine.machine import write_atomically
from cudaforge.engine.sandbox import ChildTimeout
from cudaforge.evaluation import Baseline, ProfileRequest
from cudaforge_profiling.metrics import parse_query_metrics, resolve
from cudaforge_profiling.ncu import command, parse_failure, parse_version
from cudaforge_profiling.report import ReportError, read
from cudaforge_profiling.roofline import roofline
from cudaforge_profiling.types import Device, Profile

RANGE = "cudaforge_profile"
NCU_TIMEOUT_S = 300.0
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


def with_ncu(profile: Profile, request: ProfileRequest, built: Built, reference: ReferenceHost, cache: Path) -> Profile:
    """Adds what ncu says of the launches within one call. Never fails: what is missing is said in `unavailable`."""
    ncu = shutil.which("ncu")
    if ncu is None:
        return profile.model_copy(update={"unavailable": "ncu (Nsight Compute) is not installed"})
    version = parse_version(_output([ncu, "--version"]))
    available = parse_query_metrics(_queried(ncu, version, profile.device, cache))
    names, notes = resolve(request.metric_set, available)
    scratch = cache / "profiles"
    scratch.mkdir(parents=True, exist_ok=True)
    report = scratch / f"{request.kernel.id}.ncu-rep"
    report.unlink(missing_ok=True)
    wrapper = command(
        ncu, report, names, nvtx_range=RANGE, source=request.metric_set != "paper", launch_count=MAX_LAUNCHES
    )
    candidate: CandidateHost | None = None
    try:
        candidate = CandidateHost(
            request.kernel, built, reference, NCU_TIMEOUT_S, wrapper=tuple(wrapper), write=(str(scratch),)
        )
        candidate.give_parameters()
        candidate.give_inputs(range(1))
        candidate.profile(RANGE)
        # ncu writes the report when the process under it has ended; it ends when the channel closes.
        candidate.child.channel.close()
        candidate.child.wait(NCU_TIMEOUT_S)
    except (CandidateFailed, ChildTimeout) as failure:
        said = candidate.child.output if candidate is not None else ""
        why = parse_failure(said) or f"the profiled run failed: {failure}"
        return profile.model_copy(update={"unavailable": why, "notes": notes, "tool": f"ncu {version}"})
    finally:
        if candidate is not None:
            candidate.close()
    try:
        seen = read(
            report,
            entry_functions=built.build.entry_functions,
            metrics=names,
            sources=dict(request.kernel.files),
        )
    except ReportError as error:
        why = parse_failure(candidate.child.output) or str(error)
        return profile.model_copy(update={"unavailable": why, "notes": notes, "tool": f"ncu {version}"})
    data = report.read_bytes()
    report.unlink()
    if len(data) > MAX_REPORT:
        notes = (*notes, f"the report of {len(data) >> 20} MiB was too large to keep")
    return profile.model_copy(
        update={
            "launches": seen.launches,
            "hot_lines": seen.hot_lines,
            "notes": (*notes, *seen.notes),
            "tool": f"ncu {version}",
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
