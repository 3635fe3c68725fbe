"""What the machine found out about a kernel, drawn for a person: evaluations and profiles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cudaforge.cli import output
from cudaforge.describe import eager_us
from cudaforge.evaluation import Attribution, Correctness, Diagnostic, Evaluation, OutputError, WorkloadTiming
from cudaforge_profiling.demangle import readable
from cudaforge_profiling.types import Profile

MOST_DIAGNOSTICS = 12
MOST_METRICS = 24
MOST_NAMES = 3
AIDS = {
    "events_us": "its own events",
    "enqueue_us": "queueing on the host",
    "warm_us": "warm",
    "end_to_end_us": "launch and wait included",
}


def evaluation(found: Evaluation, *, provenance: bool = True) -> RenderableType:
    """Verdict, diagnostics, correctness in words, times, seconds per stage; kernel, device and isolation on demand."""
    symbol, style = output.SYMBOLS[found.verdict.value]
    title = f"{symbol} {found.verdict.value}" + (f" ({found.rule})" if found.rule else "")
    parts: list[RenderableType] = [Text(title, f"bold {style}")]
    if found.reason and not (found.correctness and found.correctness.errors):  # else the words below say it
        parts.append(Text(output.clean(found.reason)))
    parts += [_diagnostic(d) for d in found.diagnostics[:MOST_DIAGNOSTICS]]
    if len(found.diagnostics) > MOST_DIAGNOSTICS:
        parts.append(Text(f"  and {len(found.diagnostics) - MOST_DIAGNOSTICS} more messages", "dim"))
    if found.correctness:
        parts += [Text(line) for line in correctness(found.correctness, _workload(found.reason))]
    parts += _times(found)
    if found.output_tail.strip() and not found.passed:
        parts.append(Text("it printed:", "dim"))
        parts.append(Text(output.clean(found.output_tail.strip())[-2000:]))
    facts = Table.grid(padding=(0, 2))
    if provenance:
        facts.add_row("kernel", found.kernel)
        facts.add_row("device", Text(f"{found.device.name} ({found.device.arch})"))
    if found.build:
        cached = ", from the cache" if found.build.cached else ""
        facts.add_row("build", Text(f"{found.build.compiler} {output.duration(found.build.seconds)}{cached}".strip()))
    if found.stages_s:
        facts.add_row("stages", stages(found.stages_s))
    if provenance and found.isolation:
        facts.add_row("isolation", Text("; ".join(found.isolation)))
    parts.append(facts)
    return Group(*parts)


def stages(seconds: dict[str, float]) -> str:
    """`build 3.1 s, check 0.4 s`."""
    return ", ".join(f"{name} {output.duration(value)}" for name, value in seconds.items())


def _workload(reason: str) -> str:
    """`workload NAME: ` where a reason names the one that failed, else empty."""
    match = re.match(r"workload [^:]{1,80}: ", reason)
    return output.clean(match[0]) if match else ""


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
        words += f", {output.clean(error.pattern)}"
    if error.max_abs is not None:
        words += f"; largest error {error.max_abs:.3g}"
        if error.reference_max_abs is not None:
            words += f" (PyTorch's own: {error.reference_max_abs:.3g})"
    for index, expected, got in error.first[:3]:
        words += f"\n    at {list(index)}: expected {_number(expected)}, got {_number(got)}"
    return words


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.6g}"


def _diagnostic(found: Diagnostic) -> Text:
    place = ":".join(str(p) for p in (found.file, found.line or "", found.column or "") if p)
    style = {"error": "red", "warning": "yellow"}.get(found.severity, "dim")
    text = Text.assemble(
        "  ", (f"{place}: " if place else "", "bold"), (found.severity, style), f": {output.clean(found.message)}"
    )
    if found.source_line.strip():
        text.append(f"\n      {output.clean(found.source_line.strip())}", "dim")
    return text


def _times(found: Evaluation) -> list[RenderableType]:
    if found.speedup is None:
        return []
    eager = eager_us(found)
    beside = f", eager beside it {output.microseconds(eager)}" if eager else ""
    line = f"{output.microseconds(found.time_us)} a call{beside}; {output.interval(found.speedup.eager)} over eager"
    if found.speedup.compile:
        line += f", {output.interval(found.speedup.compile)} over torch.compile"
    if found.share_of_floor is not None:
        line += f"; {output.floors(found.share_of_floor)}"
    parts: list[RenderableType] = [Text(line, "bold")]
    if len(found.workloads) > 1:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("workload")
        for name in ("kernel", "eager", "compile", "vs eager", "vs compile"):
            table.add_column(name, justify="right")
        for timing in found.workloads:
            table.add_row(
                timing.workload,
                output.microseconds(timing.kernel.median_us),
                output.microseconds(timing.eager.median_us),
                output.microseconds(timing.compile.median_us if timing.compile else None),
                output.interval(timing.speedup.eager),
                output.interval(timing.speedup.compile),
            )
        parts.append(table)
    for timing in found.workloads:
        where = f"{output.clean(timing.workload)}: " if len(found.workloads) > 1 else ""
        if timing.attribution:
            parts.append(Text(where + attribution(timing.attribution)))
        parts.append(Text(where + _clock(timing), "dim"))
    return parts


def attribution(found: Attribution) -> str:
    """Whose code did the work, in words; the libraries' largest functions where they did some of it."""
    if not found.own and not found.library and not found.free:
        return f"whose code did the work cannot be said: {output.clean(found.how)}"
    shares = {"own code": found.own, "libraries": found.library, "copying and filling": found.free}
    words = "work done by " + ", ".join(
        f"{name} {share:.0%}" for name, share in shares.items() if share or name == "own code"
    )
    if found.launches:
        words += f"; {found.launches} {'launch' if found.launches == 1 else 'launches'} a call"
    names = [
        f"{share.share:.0%} {output.one_line(readable(share.name), 80)}"
        for share in found.top
        if share.kind == "library"
    ]
    if found.library and names:
        words += "\n  libraries': " + "; ".join(names[:MOST_NAMES])
    return words


def _clock(timing: WorkloadTiming) -> str:
    """The clock, and times that do not count."""
    aids = [f"{AIDS.get(name, name)} {output.microseconds(us.value)}" for name, us in timing.aids.items()]
    words = f"clock: {output.clean(timing.kernel.clock)}"
    return words + (f"; aside, a call: {', '.join(aids)}" if aids else "")


def profile(found: Profile, workloads: Sequence[str] = (), *, counters: bool = True) -> RenderableType:
    """Roofline, the launches with their counters, hot lines and compiler remarks; or why there is none.

    Of several `workloads` the first one is said to be the profiled one. `counters=False`: why there are none is known.
    """
    which = f", workload {workloads[0]} (only the first is profiled)" if len(workloads) > 1 else ""
    title = f"profile by {found.tool}, metric set {found.metric_set}{which}"
    parts: list[RenderableType] = [Text(title, "bold")]
    if found.unavailable and counters:
        parts.append(Text(f"  no hardware counters: {output.clean(found.unavailable)}", "yellow"))
    if roof := found.roofline:
        words = [f"{roof.bound}-bound, moves at least {output.size(roof.bytes)}"]
        if roof.floor_us:
            words.append(f"floor {output.microseconds(roof.floor_us)}")
        if roof.achieved_bytes_per_s:
            words.append(f"{roof.achieved_bytes_per_s / 1e9:.1f} GB/s")
        if roof.achieved_flops_per_s:
            words.append(f"{roof.achieved_flops_per_s / 1e9:.1f} GFLOP/s")
        if roof.share_of_floor is not None:
            words.append(f"takes {output.floors(roof.share_of_floor)}")
        parts.append(Text("  " + ", ".join(words)))
    for launch in found.launches:
        took = f", {output.microseconds(launch.duration_us)}" if launch.duration_us is not None else ""
        shape = f"grid {launch.grid}, block {launch.block}{took}"
        parts.append(Text(f"  launch {launch.index}: {output.one_line(launch.name, 80)}: {shape}"))
        table = Table.grid(padding=(0, 2))
        for metric in list(launch.metrics.values())[:MOST_METRICS]:
            value = output.significant(float(metric.value)) if isinstance(metric.value, int | float) else metric.value
            table.add_row("   ", Text(metric.name), Text(f"{value} {metric.unit}".rstrip()))
        parts.append(table)
        if len(launch.metrics) > MOST_METRICS:
            parts.append(Text(f"    and {len(launch.metrics) - MOST_METRICS} more metrics (--json has all)", "dim"))
    parts += [
        Text(f"  {hot.share:.0%} of stalls at {hot.file}:{hot.line}: {output.one_line(hot.text)}")
        for hot in found.hot_lines[:8]
    ]
    parts += [
        Text(f"  {r.file}:{r.line}: {r.kind}: {output.one_line(r.message, 120)}", "dim") for r in found.remarks[:12]
    ]
    parts += [Text(f"  note: {output.clean(note)}", "dim") for note in found.notes]
    return Group(*parts)
