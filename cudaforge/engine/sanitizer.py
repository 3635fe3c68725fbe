"""compute-sanitizer over one call of a winner: memory errors are failures, the rest is noted.

memcheck sees every access outside an allocation, since torch's caching of memory is switched off; racecheck and
initcheck follow where there is time. A kernel whose blocks wait for one another may not end under it, which is noted
and is no verdict; nor is anything that the tool itself cannot do.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from cudaforge.engine.builder import Built
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, ReferenceHost
from cudaforge.engine.sandbox import ChildTimeout
from cudaforge.errors import EvaluatorError
from cudaforge.kernel import Kernel

LIMIT_S = 90.0
TOOLS = ("memcheck", "racecheck", "initcheck")
_ERRORS = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")
_FIRST = re.compile(r"=+ (Invalid [^\n]*|Error: [^\n]*|Race reported[^\n]*|Uninitialized [^\n]*|Warning: Race[^\n]*)")
_WHERE = re.compile(r"at [^\n]*?in ([\w.]+\.cu):(\d+)|at [^\n]* \(([\w./-]+\.cu):(\d+)\)|([\w]+\.cu):(\d+)")


@dataclass(frozen=True)
class Findings:
    """What the tools said: `error` and its place where memcheck found one, and notes for the reader."""

    error: str = ""
    file: str = ""
    line: int = 0
    notes: tuple[str, ...] = ()
    log: str = ""


def run(kernel: Kernel, built: Built, reference: ReferenceHost, timeout_s: float) -> Findings:
    """Runs the tools one after the other, each on a fresh process and one call on the present source sets."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return Findings(notes=("compute-sanitizer is not installed: memory errors were not looked for",))
    notes: list[str] = []
    for name in TOOLS:
        command = (tool, "--tool", name, "--error-exitcode", "0", "--print-limit", "5", "--launch-timeout", "0")
        ended, log = _one(kernel, built, reference, min(timeout_s, LIMIT_S), command)
        count = sum(int(a or b) for a, b in _ERRORS.findall(log))
        if not ended:
            notes.append(f"{name}: not finished within {min(timeout_s, LIMIT_S):.0f} s, so nothing is known")
        elif not _ERRORS.search(log):
            notes.append(f"{name}: gave no summary, so nothing is known")
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


def _one(
    kernel: Kernel, built: Built, reference: ReferenceHost, timeout_s: float, command: tuple[str, ...]
) -> tuple[bool, str]:
    """Whether a run ended, and what the tool printed."""
    candidate: CandidateHost | None = None
    ended = False
    try:
        extra = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        candidate = CandidateHost(kernel, built, reference, timeout_s, wrapper=command, extra_env=extra, timed=False)
        candidate.give_parameters()
        candidate.give_inputs(range(1))
        candidate.profile("sanitized")
        candidate.child.channel.close()
        candidate.child.wait(timeout_s)
        ended = True
    except (CandidateFailed, ChildTimeout) as failure:
        # memcheck stops a kernel that faults, so the call raises: what the tool printed says why.
        ended = isinstance(failure, CandidateFailed) and failure.kind == "error"
        if candidate is not None and ended:
            candidate.child.channel.close()
            candidate.child.exit_code(20.0)
    except EvaluatorError:
        pass
    finally:
        log = candidate.child.output if candidate is not None else ""
        if candidate is not None:
            candidate.close()
            log = candidate.child.output
    return ended, log
