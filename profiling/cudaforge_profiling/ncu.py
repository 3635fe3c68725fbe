"""The command line of Nsight Compute, and what its messages mean. Starts nothing: the engine does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

PC_SAMPLING = ("smsp__pcsamp_sample_count", "group:smsp__pcsamp_warp_stall_reasons")
"""Where the warps were and why they waited, per instruction: about one pass, unlike the SourceCounters section,
which also instruments the code to count instructions."""


def command(
    ncu: str | Path,
    report_path: str | Path,
    metrics: Sequence[str],
    *,
    nvtx_range: str = "",
    sections: Sequence[str] = (),
    source: bool = True,
    launch_skip: int = 0,
    launch_count: int | None = None,
    cache_control: Literal["all", "none"] = "all",
    rules: bool = False,
    extra: Sequence[str] = (),
) -> list[str]:
    """The arguments up to, and without, the program that is to be profiled.

    Written for ncu 2025.3; every option has been there since 2022.

    Args:
        report_path: the report to write; ncu adds `.ncu-rep` where it is missing.
        metrics: names that the chip has (`metrics.resolve`): one that it lacks fails the whole run.
        nvtx_range: only launches inside this push/pop range, in NVTX's default domain or in the one named `NVTX`
            that the Python package nvtx uses; `DOMAIN@RANGE` names another. Empty: all launches.
        sections: names of ncu's sections to collect besides, e.g. `SourceCounters`.
        source: add PC sampling and put the sources into the report, for `report.read`'s hot lines. The kernel must
            be compiled with `-lineinfo`.
        launch_count: at most so many launches; None is no limit.
        cache_control: `all` empties the caches before each pass, `none` leaves them warm.
        rules: apply NVIDIA's own rules.
    """
    names = [*metrics, *(name for name in PC_SAMPLING if source and name not in metrics)]
    # Clocks stay as they are: locking them needs rights, and touches a machine that others may share.
    arguments = [str(ncu), "--target-processes", "all", "--clock-control", "none", "--cache-control", cache_control]
    if nvtx_range:
        ranges = [nvtx_range] if "@" in nvtx_range else [nvtx_range, f"NVTX@{nvtx_range}"]
        arguments.append("--nvtx")
        for name in ranges:
            # The slash says push/pop; without it ncu looks for a start/end range and profiles nothing.
            arguments += ["--nvtx-include", name.rstrip("/") + "/"]
    if launch_skip:
        arguments += ["--launch-skip", str(launch_skip)]
    if launch_count is not None:
        arguments += ["--launch-count", str(launch_count)]
    for section in sections:
        arguments += ["--section", section]
    if names:
        arguments += ["--metrics", ",".join(names)]
    arguments += ["--import-source", "yes" if source else "no", "--apply-rules", "yes" if rules else "no"]
    arguments += ["--check-exit-code", "no", "--print-summary", "none", *extra]
    return [*arguments, "-f", "-o", str(report_path)]


def query_command(ncu: str | Path, *, device: int | None = None) -> list[str]:
    """Lists the counters of the device's chip, for `metrics.parse_query_metrics`."""
    return [str(ncu), "--query-metrics", *(["--devices", str(device)] if device is not None else [])]


def version_command(ncu: str | Path) -> list[str]:
    """For `parse_version`."""
    return [str(ncu), "--version"]


def parse_version(text: str) -> str:
    """`2025.3.1` from the output of `ncu --version`; empty where there is none."""
    match = re.search(r"\bVersion\s+(\d{4}\.\d+(?:\.\d+)?)", text)
    return match.group(1) if match else ""


_FAILURES: tuple[tuple[str, str], ...] = (
    (
        r"ERR_NVGPUCTRPERM",
        "The driver lets only administrators read hardware counters: run as root or with CAP_SYS_ADMIN, or set "
        "NVreg_RestrictProfilingToAdminUsers=0 for the nvidia kernel module (developer.nvidia.com/ERR_NVGPUCTRPERM).",
    ),
    (
        r"LibraryNotLoaded",
        "ncu could not load the driver's profiling library (LibraryNotLoaded): this container or virtual machine "
        "does not pass it through, so hardware counters are not to be had here; profile on the bare host.",
    ),
    (
        r"(?i)driver[^\n]*(?:not compatible|incompatible|too old|not supported)|DriverNotSupported"
        r"|insufficient driver|driver version is insufficient|NotSupported[^\n]*driver",
        "ncu and the NVIDIA driver do not fit together: install a newer driver, or the ncu of the driver's CUDA "
        "version.",
    ),
    (
        r"(?i)driver resource was unavailable|ProfilerInUse|another profiler|already being profiled",
        "Another tool holds the GPU's counters (DCGM, nsys, a second ncu): stop it, or pause DCGM's profiling metrics "
        "(`dcgmi profiling --pause`).",
    ),
    (
        r"(?i)(?:failed to find|unknown|invalid) metric[^\n]*",
        "ncu does not know a metric that was asked for ({match}): list the chip's with `ncu --query-metrics`.",
    ),
    (
        r"(?i)(?:failed to find|unknown|invalid|unable to find)[^\n]{0,20} section[^\n]*",
        "ncu does not know a section that was asked for ({match}): list them with `ncu --list-sections`.",
    ),
    (
        r"(?i)unrecogni[sz]ed option[^\n]*|the argument for option[^\n]*is invalid|unknown option[^\n]*",
        "This version of ncu does not take an option ({match}): ncu 2022 or later is needed.",
    ),
    (
        r"(?i)GPU[^\n]*(?:is not supported|not supported by)|Profiling is not supported on (?:this )?device[^\n]*"
        r"|no supported devices|No CUDA-capable device",
        "ncu does not support this GPU, or finds none: Volta or later is needed, and a driver that sees it.",
    ),
    (
        r"(?i)(?:failed to (?:create|open|write)|cannot (?:create|open)|could not (?:create|open))[^\n]*",
        "ncu could not write a file ({match}): it needs room, and a writable TMPDIR of its own.",
    ),
    (
        r"(?i)Failed to prepare kernel for profiling[^\n]*",
        "ncu could not save what the kernel writes for its replay: most often too little free GPU memory.",
    ),
    (
        r"Failed to profile[^\n]*",
        "ncu failed inside a launch ({match}): a kernel whose blocks wait for one another, or that runs too long, "
        "cannot always be replayed.",
    ),
    (
        r"(?i)no kernels were profiled",
        "ncu saw no kernel launch in the profiled range: none was launched there, or launching failed.",
    ),
    (
        r"(?i)Target process \d+ terminated before first instrumented API call",
        "The program ended before it first called CUDA.",
    ),
)


def parse_failure(text: str) -> str:
    """What went wrong and what to do about it, in one sentence; empty where the output shows no failure.

    The most telling cause wins: without permission ncu also says that no kernels were profiled.
    """
    # ncu marks its own lines; whatever else is there was printed by the profiled program.
    said = "\n".join(re.findall(r"^==(?:ERROR|WARNING|PROF)==.*$", text, re.MULTILINE)) or text
    for pattern, sentence in _FAILURES:
        match = re.search(pattern, said)
        if match:
            found = re.sub(r"\s+", " ", match.group(0)).strip().rstrip(".:;")
            return sentence.replace("{match}", found[:160])
    error = re.search(r"^==ERROR==\s*(.+)$", said, re.MULTILINE)
    return f"ncu failed: {error.group(1).strip().rstrip('.')}." if error else ""
