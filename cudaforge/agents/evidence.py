"""Evidence: what a verdict or a profile says, as text for an agent.

The texts are put between fences by the templates, since compilers and kernels write parts of them; `hints`
are our own sentences and hold nothing of theirs but numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cudaforge.evaluation import Correctness, Diagnostic, Evaluation, OutputError, Verdict
from cudaforge.kernel import Kernel
from cudaforge_profiling.demangle import readable

MAX_DIAGNOSTICS = 20
REGISTERS_PER_BLOCK = 65_536
"""32-bit registers of one SM on every NVIDIA GPU since Kepler, which is also the most one block can have."""
MAX_REGISTERS_PER_THREAD = 255
RULES = {
    "no custom kernel": (
        "The work must be done by the kernel's own code. The functions named, with their shares of the time, are a "
        "library's or PyTorch's: find the calls in model.py that lead there, fallbacks and conversions included, and "
        "do their work in the kernel. Allocating, reshaping and copying are free beside it, not in its place."
    ),
    "timed calls are wrong": (
        "Timed calls follow one another without a wait, each on inputs of its own that nobody has seen before, and all "
        "outputs are held. Look for results or output buffers kept from an earlier call, work on a stream or in a "
        "thread that nothing joins, a workspace that two calls share, a race."
    ),
    "inputs changed": "Inputs and what lies around them were compared afterwards. Write to outputs and buffers alone.",
    "out of bounds": (
        "Something was written outside the outputs: check indices of the last tile, sizes of vector stores, strides."
    ),
    "impossible time": (
        "The time is less than moving the bytes takes. Some of the work was not done, or not in the timed calls."
    ),
    "hides its work": (
        "What it launches could not be traced, though this machine can trace: leave CUPTI and the profiler alone."
    ),
    "traced calls are wrong": (
        "The output was wrong while its launches were traced. It must do the same whether it is looked at or not."
    ),
    "work after the done flag": (
        "The GPU was still busy when the timed calls had ended. All work must be on the caller's stream or joined to "
        "it before forward returns."
    ),
    "outputs changed after the done flag": (
        "Outputs were still being written when the timed calls had ended. All work must be on the caller's stream or "
        "joined to it before forward returns."
    ),
    "its own clock disagrees": (
        "CUDA events around the calls and the clock outside tell different times: part of the work is not on the "
        "caller's stream, or the kernel touches events, graphs or synchronisation in ways that move it."
    ),
    "it ran while it was stopped": (
        "The process is stopped between batches, and its threads ran then. Nothing may wake it: no timers, no signals."
    ),
    "the baseline was slowed down": (
        "PyTorch is slower beside this kernel's idle process than without it: it leaves work on the GPU, or a thread "
        "or persistent kernel running, when forward has returned."
    ),
}
"""What to do about each rule of fair play, in our words; a test holds this to the rules of the engine."""
RECIPES = {
    "heavy tails": "mostly small values, and a few near the ends of the range",
    "offset mean": "a mean far from where it usually is",
    "small integers": "whole numbers, so that sums are exact and values repeat",
    "sparse": "about half of the elements zero",
}
"""Kinds of inputs that a trial may use, by the name that an INCORRECT gives them."""


@dataclass(frozen=True)
class Failure:
    """Why a kernel did not pass."""

    summary: str
    """One sentence, partly untrusted."""
    log: str
    """Diagnostics or differences, untrusted; may be empty."""
    printed: str
    """The end of the kernel's own output, untrusted; may be empty."""
    hints: tuple[str, ...]
    """How to read the log, in our words."""


def failure(evaluation: Evaluation, kernel: Kernel) -> Failure:
    """What there is to say of an evaluation that did not pass."""
    log, hints = _READERS[evaluation.verdict](evaluation, kernel)
    summary = re.sub(r"\b_Z\w+", lambda m: readable(m[0]), evaluation.reason)
    if evaluation.rule and not summary.startswith(f"{evaluation.rule}:"):
        what = "stage" if evaluation.verdict is Verdict.TIMEOUT else "rule"
        summary = f"({what}: {evaluation.rule}) {summary}"
    return Failure(summary=summary, log=log, printed=evaluation.output_tail.strip(), hints=tuple(hints))


def _build_failed(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    errors = [d for d in evaluation.diagnostics if d.severity == "error"]
    hints = []
    if any(d.tool == "ptxas" for d in errors):
        hints.append(
            f"ptxas reads the PTX that was generated from {kernel.language.source_name or 'the source'}: "
            "a line that it names is a line of PTX, not of your file."
        )
    # nvcc repeats a failure of a tool that it called in its own name, so any tool may be the one that says it.
    if any(re.search(r"\bregisters?\b", d.message, re.I) for d in errors if d.tool in ("ptxas", "nvcc", "")):
        hints.append(_register_arithmetic(kernel))
    if any(re.search(r"\bfatal\b|compilation terminated", d.message, re.I) for d in errors):
        hints.append("A fatal error ends the compilation: there may be further errors behind it.")
    return _diagnostics(evaluation.diagnostics), hints


def _register_arithmetic(kernel: Kernel) -> str:
    """Where a register cap comes from, for the thread counts that the source names."""
    named = {int(n) for n in re.findall(r"__launch_bounds__\s*\(\s*(\d{1,4})", kernel.source)}
    named = {n for n in named if 32 <= n <= 1024}
    counts = sorted(named | {128, 256, 384, 512, 768, 1024})

    def cap(threads: int) -> int:
        # Registers are handed out to warps in units of 256, that is 8 a thread.
        return min(MAX_REGISTERS_PER_THREAD, REGISTERS_PER_BLOCK // (-(-threads // 32) * 32) // 8 * 8)

    table = ", ".join(f"{n} threads: {cap(n)}" + (" (in your launch bounds)" if n in named else "") for n in counts)
    return (
        "The cap on registers a thread is 65,536 / threads a block, by the first argument of __launch_bounds__ (or "
        "1,024 where there is none), divided once more by its second, the least blocks an SM; never above 255. "
        f"setmaxnreg does not lift it at compile time. For one block an SM: {table}."
    )


def _runtime_error(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    log = _diagnostics(evaluation.diagnostics)
    hints = []
    if re.search(r"\bCUDA\b|illegal|misaligned|unspecified launch", log + evaluation.reason):
        hints.append(
            "CUDA errors surface late: the launch that failed may stand before the line that reports it. "
            "Look at indices, alignment of vector accesses, shared-memory size (above 48 KiB it needs "
            "cudaFuncSetAttribute) and launch dimensions."
        )
    return log, hints


def _timeout(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    if evaluation.rule and "build" in evaluation.rule:
        hint = "The compiler did not end in time: look for huge unrolled loops and deep templates."
    else:
        hint = (
            "It hung or is far too slow. Look for loops that do not end, a barrier that not all threads reach, and "
            "blocks or threads that wait for others which cannot run at the same time."
        )
    return _diagnostics(evaluation.diagnostics), [hint]


def _incorrect(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    found = evaluation.correctness
    lines = [_comparison(found)] if found else []
    lines += [_output_error(error) for error in found.errors] if found else []
    if evaluation.diagnostics:
        lines.append(_diagnostics(evaluation.diagnostics))
    hints = ["Errors are taken against a float64 reference, over every element."]
    kind = re.search(rf"\bon inputs with ({'|'.join(RECIPES)})\b", evaluation.reason)
    if kind:
        hints.append(
            f"The values had {RECIPES[kind[1]]}, within the range of the task's own inputs. Look for what holds for "
            "usual values alone: a sum or maximum over a part, a mean that is not subtracted, overflow, a precision."
        )
    if "one run of the same input is right and another is not" in evaluation.reason:
        hints.append(
            "The same inputs gave a right and a wrong result: look for a missing barrier, threads that write the same "
            "place, and memory that is read before it is written."
        )
    own = [e for e in found.errors if e.max_abs and e.reference_max_abs and e.total] if found else []
    if any((e.max_abs or 0) < 1e4 * (e.reference_max_abs or 0) and e.mismatched > e.total // 2 for e in own):
        hints.append(
            "Small errors nearly everywhere point at precision (a lower-precision product, a long sum in one "
            "accumulator, a fast approximation), large errors in a part at indexing or synchronisation."
        )
    return "\n".join(lines), hints


def _comparison(found: Correctness) -> str:
    line = f"{found.passed} of {found.trials} trials passed"
    if found.errors:
        line = f"trial {found.passed + 1} failed, which ended the check ({found.passed} passed before it)"
    line += f". Tolerance: {found.tolerance}"
    if found.worst_ratio is not None:
        line += f". Largest error / allowed error: {found.worst_ratio:.4g}"
    return line + "".join(f"\nnote: {flag}" for flag in found.flags)


def _output_error(error: OutputError) -> str:
    share = error.mismatched / error.total if error.total else 0.0
    name = "the output" if error.output == "output" else f"output {error.output}"
    lines = [f"{name}: {error.mismatched:,} of {error.total:,} elements are wrong ({share:.3%})"]
    if error.total == 1 and error.first:  # a scalar: its values say all
        _, expected, got = error.first[0]
        lines = [f"{name}, a single number: expected {_number(expected)}, got {_number(got)}"]
    elif error.pattern:
        lines.append(f"  where: {error.pattern}")
    if error.max_abs is not None:
        lines.append(f"  largest absolute error: {error.max_abs:.6g}")
    if error.max_rel is not None:
        lines.append(f"  largest relative error: {error.max_rel:.6g}")
    if error.reference_max_abs is not None:
        lines.append(f"  PyTorch's own largest absolute error in this dtype: {error.reference_max_abs:.6g}")
    for index, expected, got in error.first[:10] if error.total > 1 else ():
        lines.append(f"  at {list(index)}: expected {_number(expected)}, got {_number(got)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.9g}"


def _rejected(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    hint = (
        "The kernel broke a rule of what it may do, whatever its result. Change how the work is done, not how it looks."
    )
    known = RULES.get(evaluation.rule or "")
    return _diagnostics(evaluation.diagnostics), [hint, known] if known else [hint]


def _other(evaluation: Evaluation, kernel: Kernel) -> tuple[str, list[str]]:
    return _diagnostics(evaluation.diagnostics), []


_READERS: dict[Verdict, Callable[[Evaluation, Kernel], tuple[str, list[str]]]] = {
    Verdict.PASSED: _other,
    Verdict.INFRASTRUCTURE: _other,
    Verdict.BUILD_FAILED: _build_failed,
    Verdict.RUNTIME_ERROR: _runtime_error,
    Verdict.TIMEOUT: _timeout,
    Verdict.INCORRECT: _incorrect,
    Verdict.REJECTED: _rejected,
}


def _diagnostics(diagnostics: tuple[Diagnostic, ...]) -> str:
    """Messages as a compiler prints them, each with its source line; warnings only where there is no error."""
    if any(d.severity == "error" for d in diagnostics):
        diagnostics = tuple(d for d in diagnostics if d.severity != "warning")
    lines = []
    for d in diagnostics[:MAX_DIAGNOSTICS]:
        place = ":".join(str(part) for part in (d.file, d.line, d.column) if part)
        tool = f" [{d.tool}]" if d.tool else ""
        lines.append(f"{place}: {d.severity}: {d.message}{tool}" if place else f"{d.severity}: {d.message}{tool}")
        if d.source_line.strip():
            lines.append(f"{d.line:6d} | {d.source_line.rstrip()}")
    if len(diagnostics) > MAX_DIAGNOSTICS:
        lines.append(f"... and {len(diagnostics) - MAX_DIAGNOSTICS} more")
    return "\n".join(lines)
