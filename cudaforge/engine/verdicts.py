"""From what went wrong to a verdict that a person and a model can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cudaforge.engine.builder import BuildFailed
from cudaforge.engine.hosts import CandidateFailed
from cudaforge.engine.sanitizer import Findings
from cudaforge.evaluation import Correctness, Diagnostic, Evaluation, OutputError, Verdict
from cudaforge.kernel import Kernel

COMPILE_ERRORS = ("CompilationError", "CompileTimeAssertionFailure", "OutOfResources", "PTXASError")
"""Exceptions of Triton's compiler."""


def _verdict(
    verdict: Verdict, reason: str, account: dict[str, Any], stages: dict[str, float], **more: Any
) -> Evaluation:
    fields = account | {"seeds": tuple(account["seeds"]), "stages_s": dict(stages)} | more
    return Evaluation(verdict=verdict, reason=reason[:2000], **fields)


def build_failed(failed: BuildFailed, account: dict[str, Any], stages: dict[str, float]) -> Evaluation:
    """BUILD_FAILED with the compiler's diagnostics."""
    return _verdict(Verdict.BUILD_FAILED, failed.reason, account, stages, diagnostics=failed.diagnostics)


def built_late(timeout_s: float, account: dict[str, Any], stages: dict[str, float]) -> Evaluation:
    """TIMEOUT of a compiler."""
    reason = f"the compiler took longer than {timeout_s:g} s."
    return _verdict(Verdict.TIMEOUT, reason, account, stages, rule="build")


def incorrect(reason: str, correctness: Correctness, account: dict[str, Any], stages: dict[str, float]) -> Evaluation:
    """INCORRECT with where and how."""
    return _verdict(Verdict.INCORRECT, reason, account, stages, correctness=correctness)


def sanitized(found: Findings, kernel: Kernel, account: dict[str, Any], stages: dict[str, float]) -> Evaluation:
    """RUNTIME_ERROR with the place that memcheck names."""
    text = kernel.files.get(found.file, "").splitlines()
    diagnostic = Diagnostic(
        severity="error",
        message=found.error,
        file=found.file,
        line=found.line,
        source_line=text[found.line - 1] if 0 < found.line <= len(text) else "",
        tool="compute-sanitizer",
    )
    where = f"{found.file}:{found.line}: " if found.line else ""
    return _verdict(Verdict.RUNTIME_ERROR, where + found.error, account, stages, diagnostics=(diagnostic,))


def failed(
    failure: CandidateFailed, kernel: Kernel, package: Path, account: dict[str, Any], stages: dict[str, float]
) -> Evaluation:
    """TIMEOUT, REJECTED, INCORRECT (form), RUNTIME_ERROR, or BUILD_FAILED for a Python-only kernel's own build."""
    if failure.kind == "timeout":
        return _verdict(Verdict.TIMEOUT, failure.reason, account, stages, rule=failure.stage)
    if failure.kind == "rule":
        return _verdict(Verdict.REJECTED, failure.reason, account, stages, rule=failure.stage)
    if failure.kind == "form":
        return _verdict(Verdict.INCORRECT, failure.reason, account, stages)
    error = failure.error
    if error is None:
        tail = str(account.get("output_tail", "")).strip().splitlines()
        reason = f"{failure.reason} {tail[-1][:500]}".strip() if tail else failure.reason
        return _verdict(Verdict.RUNTIME_ERROR, reason, account, stages)
    diagnostic = _diagnostic(failure, kernel, package)
    built_by_itself = kernel.language.source_name is None and (
        error.type in COMPILE_ERRORS or "Error building extension" in error.message or error.type == "SyntaxError"
    )
    verdict = Verdict.BUILD_FAILED if built_by_itself or error.type == "SyntaxError" else Verdict.RUNTIME_ERROR
    reason = f"{diagnostic.file}:{diagnostic.line}: {failure.reason}" if diagnostic.line else failure.reason
    return _verdict(verdict, reason, account, stages, diagnostics=(diagnostic,))


def _diagnostic(failure: CandidateFailed, kernel: Kernel, package: Path) -> Diagnostic:
    """The exception at the innermost frame that lies in the candidate's own files."""
    assert failure.error is not None
    name, line = "", 0
    for file, number, _ in failure.error.frames:
        path = Path(file)
        if path.parent.name == package.name and path.name in kernel.files:  # wherever it was copied to
            name, line = path.name, number
    text = kernel.files[name].splitlines() if name else []
    return Diagnostic(
        severity="error",
        message=failure.reason,
        file=name,
        line=line,
        source_line=text[line - 1] if 0 < line <= len(text) else "",
        tool="cuda" if "CUDA error" in failure.reason else "python",
    )


def describe_errors(errors: tuple[OutputError, ...]) -> str:
    """The first wrong output in one sentence."""
    first = errors[0]
    share = first.mismatched / max(first.total, 1)
    name = "the output" if first.output == "output" else f"output {first.output}"
    parts = [f"{name}: {first.mismatched} of {first.total} elements ({share:.2%}) are wrong"]
    if first.total == 1:  # a scalar: its values say more than any pattern
        _, want, got = first.first[0]
        shown = ["not finite" if x is None else f"{x:.9g}" for x in (got, want)]
        return f"{name} is {shown[0]} where {shown[1]} is right."
    if first.max_abs is not None:
        parts.append(f"largest error {first.max_abs:.3g}")
    if first.pattern:
        parts.append(first.pattern)
    if len(errors) > 1:
        parts.append(f"{len(errors) - 1} more outputs are wrong too")
    return "; ".join(parts) + "."
