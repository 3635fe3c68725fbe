"""compute-sanitizer over one call of a winner: memory errors are failures, the rest is noted.

memcheck sees every access outside an allocation, since torch's caching of memory is switched off; racecheck runs beside
it. initcheck does not: it takes lent memory, which another process has written, for uninitialised, and finds a right
kernel a thousand times guilty in half a minute. Poisoned memory does its work in every check. A kernel whose blocks
wait for one another may not end under a tool, which is noted and is no verdict; nor is anything that the tool itself
cannot do.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cudaforge.engine.builder import Built
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, ReferenceHost
from cudaforge.engine.sandbox import ChildTimeout
from cudaforge.errors import EvaluatorError
from cudaforge.kernel import Kernel

LIMITS_S = {"memcheck": 90.0, "racecheck": 45.0}
"""Seconds that each tool may take. Only memcheck's findings are a verdict, so it may take the longest."""
_ERRORS = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")
_FIRST = re.compile(r"=+ (Invalid [^\n]*|Error: [^\n]*|Race reported[^\n]*|Warning: Race[^\n]*)")
_WHERE = re.compile(r"at [^\n]*?in ([\w.]+\.cu):(\d+)|at [^\n]* \(([\w./-]+\.cu):(\d+)\)|([\w]+\.cu):(\d+)")


Run = tuple[str, str]
"""What a tool printed, and why it says nothing; that is empty where it may have said something."""


@dataclass(frozen=True)
class Findings:
    """What the tools said: `error` and its place where memcheck found one, and notes for the reader."""

    error: str = ""
    file: str = ""
    line: int = 0
    notes: tuple[str, ...] = ()
    log: str = ""


def run(
    kernel: Kernel, built: Built, reference: ReferenceHost, timeout_s: float, *, side_by_side: bool = True
) -> Findings:
    """Runs the tools, each on a fresh process and one call on the present source sets: `side_by_side` where memory
    suffices for two candidates."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return Findings(notes=("compute-sanitizer is not installed: memory errors were not looked for",))

    def one(name: str) -> Run:
        command = (tool, "--tool", name, "--error-exitcode", "0", "--print-limit", "5", "--launch-timeout", "0")
        return _one(kernel, built, reference, min(timeout_s, LIMITS_S[name]), command)

    with ThreadPoolExecutor(len(LIMITS_S) if side_by_side else 1) as pool:
        runs = dict(zip(LIMITS_S, pool.map(one, LIMITS_S), strict=True))
    notes: list[str] = []
    for name, (log, nothing) in runs.items():
        count = sum(int(a or b) for a, b in _ERRORS.findall(log))
        if nothing or not _ERRORS.search(log):
            notes.append(f"{name}: {nothing or 'gave no summary'}, so nothing is known")
        elif count:
            first = _FIRST.search(log)
            text = first[1].strip() if first else f"{count} errors"
            place = _WHERE.search(log[first.start() :] if first else log)
            parts = [part for part in (place.groups() if place else ()) if part]
            file, line = (parts[0].rpartition("/")[2], int(parts[1])) if len(parts) >= 2 else ("", 0)
            if name == "memcheck":
                return Findings(f"memcheck: {text}", file, line, tuple(notes), log)
            where = f" at {file}:{line}" if file else ""
            notes.append(f"{name}: {text}{where} ({count} in all)")
    return Findings(notes=tuple(notes))


def _one(kernel: Kernel, built: Built, reference: ReferenceHost, timeout_s: float, command: tuple[str, ...]) -> Run:
    """One tool's run."""
    candidate: CandidateHost | None = None
    nothing = ""
    try:
        extra = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        candidate = CandidateHost(kernel, built, reference, timeout_s, wrapper=command, extra_env=extra, timed=False)
        candidate.give_parameters()
        candidate.give_inputs(range(1))
        candidate.profile("sanitized")
        candidate.child.channel.close()
        candidate.child.wait(timeout_s)
    except (CandidateFailed, ChildTimeout) as failure:
        # memcheck stops a kernel that faults, so the call raises: what the tool printed says why.
        if isinstance(failure, CandidateFailed) and failure.kind == "error":
            if candidate is not None:
                candidate.child.channel.close()
                candidate.child.exit_code(20.0)
        else:
            nothing = f"not finished within {timeout_s:.0f} s"
    except EvaluatorError as failure:
        nothing = f"could not be run ({failure.message})"
    finally:
        log = candidate.child.output if candidate is not None else ""
        if candidate is not None:
            candidate.close()
            log = candidate.child.output
    return log, nothing
