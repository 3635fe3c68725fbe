"""How numbers, verdicts and findings are put into words: the same on a terminal and on a page.

Pure text, no colour and no markup. Whatever a model or a kernel wrote goes through `clean` or `one_line`.
"""

from __future__ import annotations

import re
from pathlib import Path

from cudaforge.evaluation import Attribution, Correctness, Interval, OutputError, Verification, WorkloadTiming
from cudaforge_profiling.demangle import readable

UNKNOWN = "unknown"
SYMBOLS = {
    "PASSED": ("✓", "green"),
    "BUILD_FAILED": ("✗", "red"),
    "RUNTIME_ERROR": ("✗", "red"),
    "TIMEOUT": ("⧗", "red"),
    "INCORRECT": ("≠", "yellow"),
    "REJECTED": ("⊘", "magenta"),
    "INFRASTRUCTURE": ("!", "yellow"),
}
# Terminal escapes, control characters other than newline and tab, marks that turn the direction of what follows, and
# lone surrogates, which no terminal takes.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
STAGES = {
    "baseline": "measuring the reference (eager, torch.compile)",
    "coder": "the Coder writes",
    "judge": "the Judge reads",
    "evaluate": "building, checking, timing",
    "profile": "profiling",
    "verify": "verifying the best kernel",
}
AIDS = {
    "events_us": "its own events",
    "enqueue_us": "queueing on the host",
    "warm_us": "warm",
    "end_to_end_us": "launch and wait included",
}
MOST_NAMES = 3
MOST_DRIFT = 0.05
"""How far the interval of the A/A control may stay away from 1."""


def clean(text: str) -> str:
    """Text of a model or a candidate without terminal escapes and other control characters."""
    return _CONTROL.sub("", text).expandtabs(4)


def one_line(text: str, width: int = 88) -> str:
    """The text on one line of at most `width` characters."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def short_model(spec: str) -> str:
    """A model as a line has room for it: of a recording the folder's name, not its path."""
    provider, _, name = spec.partition(":")
    return f"{provider}:{Path(name).name}" if provider == "recorded" else spec


def duration(seconds: float) -> str:
    """`20 ms`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 03 min`."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def microseconds(value: float | None) -> str:
    """`12.34 µs`, `1.234 ms`, `–` for None: four significant digits."""
    if value is None:
        return "–"
    for unit, size in (("µs", 1.0), ("ms", 1e3), ("s", 1e6)):
        if value < 1000 * size or unit == "s":
            return f"{significant(value / size)} {unit}"
    raise AssertionError  # the loop ends with seconds


def rate(value: float, of: str) -> str:
    """`559.1 GB/s`, `95.4 TFLOP/s`: a value a second of what `of` names."""
    prefix, size = ("T", 1e12) if value >= 1e12 else ("G", 1e9)
    return f"{value / size:.1f} {prefix}{of}/s"


def significant(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, never in exponent form for 1e-3 .. 1e9."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text


def times(value: float | None) -> str:
    """`2.31x`, `–` for None."""
    return "–" if value is None else f"{value:.2f}x"


def floors(share: float) -> str:
    """`1.63x the floor's time` for a `share_of_floor`; below 1x the kernel is faster than the floor estimates."""
    return f"{times(1 / share)} the floor's time"


def interval(value: Interval | None) -> str:
    """`2.31x [2.28, 2.35]`, the bracket being the 95 % interval."""
    return "–" if value is None else f"{value.value:.2f}x [{value.low:.2f}, {value.high:.2f}]"


def bracket(value: Interval) -> str:
    """`[1.82, 1.86]`."""
    return f"[{value.low:.2f}, {value.high:.2f}]"


def standing(value: Interval | None) -> str:
    """What an interval says against 1: `win`, `loss`, or `tie` where it spans it; `none` where there is none."""
    if value is None:
        return "none"
    return "win" if value.low > 1 else "loss" if value.high < 1 else "tie"


def percent(share: float | None, digits: int = 0) -> str:
    """`92 %` of a share 0..1."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def dollars(usd: float | None) -> str:
    """`$0.0123`; a price that is not known is said to be so."""
    return UNKNOWN if usd is None else "$0" if usd == 0 else f"${usd:.4f}"


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def size(value: int) -> str:
    """`12.3 MB`, powers of 1000."""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError  # the loop ends with GB


def stages(seconds: dict[str, float]) -> str:
    """`build 3.1 s, check 0.4 s`."""
    return ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())


def failed_workload(reason: str) -> str:
    """`workload NAME: ` where a reason names the one that failed, else empty."""
    match = re.match(r"workload [^:]{1,80}: ", reason)
    return clean(match[0]) if match else ""


def correctness(found: Correctness, where: str = "") -> list[str]:
    """The comparison in words, after `where`."""
    lines = [f"{where}correct on {found.passed} of {found.trials} trials; tolerance: {found.tolerance}"]
    if found.errors:
        before = f"{found.passed} passed before it, the check ended with it"
        lines = [f"{where}trial {found.passed + 1} is wrong ({before}); tolerance: {found.tolerance}"]
    if found.worst_ratio is not None:
        lines[0] += f"; worst error is {found.worst_ratio:.2g}x what is allowed"
    lines += [_output_error(error) for error in found.errors]
    lines += [f"  note: {flag}" for flag in found.flags]
    return lines


def _output_error(error: OutputError) -> str:
    share = error.mismatched / error.total if error.total else 0.0
    name = "the output" if error.output == "output" else f"output {error.output}"
    if error.total == 1 and error.first:  # a scalar: its values say all
        _, expected, got = error.first[0]
        return f"  {name}: expected {_number(expected)}, got {_number(got)}"
    words = f"  {name}: {error.mismatched} of {error.total} values ({share:.1%}) are off"
    if error.pattern:
        words += f", {clean(error.pattern)}"
    if error.max_abs is not None:
        words += f"; largest error {error.max_abs:.3g}"
        if error.reference_max_abs is not None:
            words += f" (PyTorch's own: {error.reference_max_abs:.3g})"
    for index, expected, got in error.first[:3]:
        words += f"\n    at {list(index)}: expected {_number(expected)}, got {_number(got)}"
    return words


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.6g}"


def attribution(found: Attribution) -> str:
    """Whose code did the work, in words; the libraries' largest functions where they did some of it."""
    if not found.own and not found.library and not found.free:
        return f"whose code did the work cannot be said: {clean(found.how)}"
    shares = {"own code": found.own, "libraries": found.library, "copying and filling": found.free}
    words = "work done by " + ", ".join(
        f"{name} {share:.0%}" for name, share in shares.items() if share or name == "own code"
    )
    if found.launches:
        words += f"; {found.launches} {'launch' if found.launches == 1 else 'launches'} a call"
    names = [
        f"{share.share:.0%} {one_line(readable(share.name), 80)}" for share in found.top if share.kind == "library"
    ]
    if found.library and names:
        words += "\n  libraries': " + "; ".join(names[:MOST_NAMES])
    return words


def clock(timing: WorkloadTiming) -> str:
    """The clock, and times that do not count."""
    aids = [f"{AIDS.get(name, name)} {microseconds(us.value)}" for name, us in timing.aids.items()]
    said = f"clock: {clean(timing.kernel.clock)}"
    return said + (f"; aside, a call: {', '.join(aids)}" if aids else "")


def noise_warning(verification: Verification) -> str:
    """A warning where the reference differed from itself by more than MOST_DRIFT for certain, else empty."""
    control = verification.aa
    if control is None or (control.low <= 1 + MOST_DRIFT and control.high >= 1 - MOST_DRIFT):
        return ""
    words = "the reference, timed against itself, differs by more than 5 %. Verify again on a quiet machine."
    return f"this machine was too noisy to trust the number: {words}"


def why_no_win(verification: Verification) -> str:
    """What the verification of the best kernel said against it."""
    evaluation, control = verification.evaluation, verification.aa
    if evaluation.speedup is None:
        return f"The best one: {verification.note or evaluation.verdict.value}. {one_line(evaluation.reason)}"
    measured = f"The best one measured {interval(evaluation.speedup.eager)} over eager"
    if control is None:
        return f"{measured}. {one_line(verification.note, 200)}".rstrip()
    slower = evaluation.speedup.eager.high < 1
    why = "slower" if slower else one_line(verification.note, 200) or "it does not clear the noise"
    noise = f"The reference against itself measured {control.low:.2f}x to {control.high:.2f}x."
    return f"{measured}: {why}. {noise}"
