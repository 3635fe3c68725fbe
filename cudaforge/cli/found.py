"""What the machine found out about a kernel, drawn for a person: evaluations and profiles."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cudaforge import words
from cudaforge.describe import eager_us
from cudaforge.evaluation import Diagnostic, Evaluation
from cudaforge_profiling.types import Profile

MOST_DIAGNOSTICS = 12
MOST_METRICS = 24


def evaluation(found: Evaluation, *, provenance: bool = True) -> RenderableType:
    """Verdict, diagnostics, correctness in words, times, seconds per stage; kernel, device and isolation on demand."""
    symbol, style = words.SYMBOLS[found.verdict.value]
    title = f"{symbol} {found.verdict.value}" + (f" ({found.rule})" if found.rule else "")
    parts: list[RenderableType] = [Text(title, f"bold {style}")]
    if found.reason and not (found.correctness and found.correctness.errors):  # else the words below say it
        parts.append(Text(words.clean(found.reason)))
    parts += [_diagnostic(d) for d in found.diagnostics[:MOST_DIAGNOSTICS]]
    if len(found.diagnostics) > MOST_DIAGNOSTICS:
        parts.append(Text(f"  and {len(found.diagnostics) - MOST_DIAGNOSTICS} more messages", "dim"))
    if found.correctness:
        parts += [Text(line) for line in words.correctness(found.correctness, words.failed_workload(found.reason))]
    parts += _times(found)
    if found.output_tail.strip() and not found.passed:
        parts.append(Text("it printed:", "dim"))
        parts.append(Text(words.clean(found.output_tail.strip())[-2000:]))
    facts = Table.grid(padding=(0, 2))
    if provenance:
        facts.add_row("kernel", found.kernel)
        facts.add_row("device", Text(f"{found.device.name} ({found.device.arch})"))
    if found.build:
        cached = ", from the cache" if found.build.cached else ""
        facts.add_row("build", Text(f"{found.build.compiler} {words.duration(found.build.seconds)}{cached}".strip()))
    if found.stages_s:
        facts.add_row("stages", words.stages(found.stages_s))
    if provenance and found.isolation:
        facts.add_row("isolation", Text("; ".join(found.isolation)))
    parts.append(facts)
    return Group(*parts)


def _diagnostic(found: Diagnostic) -> Text:
    place = ":".join(str(p) for p in (found.file, found.line or "", found.column or "") if p)
    style = {"error": "red", "warning": "yellow"}.get(found.severity, "dim")
    text = Text.assemble(
        "  ", (f"{place}: " if place else "", "bold"), (found.severity, style), f": {words.clean(found.message)}"
    )
    if found.source_line.strip():
        text.append(f"\n      {words.clean(found.source_line.strip())}", "dim")
    return text


def _times(found: Evaluation) -> list[RenderableType]:
    if found.speedup is None:
        return []
    eager = eager_us(found)
    beside = f", eager beside it {words.microseconds(eager)}" if eager else ""
    line = f"{words.microseconds(found.time_us)} a call{beside}; {words.interval(found.speedup.eager)} over eager"
    if found.speedup.compile:
        line += f", {words.interval(found.speedup.compile)} over torch.compile"
    if found.share_of_floor is not None:
        line += f"; {words.floors(found.share_of_floor)}"
    parts: list[RenderableType] = [Text(line, "bold")]
    if len(found.workloads) > 1:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("workload")
        for name in ("kernel", "eager", "compile", "vs eager", "vs compile"):
            table.add_column(name, justify="right")
        for timing in found.workloads:
            table.add_row(
                timing.workload,
                words.microseconds(timing.kernel.median_us),
                words.microseconds(timing.eager.median_us),
                words.microseconds(timing.compile.median_us if timing.compile else None),
                words.interval(timing.speedup.eager),
                words.interval(timing.speedup.compile),
            )
        parts.append(table)
    for timing in found.workloads:
        where = f"{words.clean(timing.workload)}: " if len(found.workloads) > 1 else ""
        if timing.attribution:
            parts.append(Text(where + words.attribution(timing.attribution)))
        parts.append(Text(where + words.clock(timing), "dim"))
    return parts


def profile(found: Profile, workloads: Sequence[str] = (), *, counters: bool = True) -> RenderableType:
    """Roofline, the launches with their counters, hot lines and compiler remarks; or why there is none.

    Of several `workloads` the first one is said to be the profiled one. `counters=False`: why there are none is known.
    """
    which = f", workload {workloads[0]} (only the first is profiled)" if len(workloads) > 1 else ""
    title = f"profile by {found.tool}, metric set {found.metric_set}{which}"
    parts: list[RenderableType] = [Text(title, "bold")]
    if found.unavailable and counters:
        parts.append(Text(f"  no hardware counters: {words.clean(found.unavailable)}", "yellow"))
    if roof := found.roofline:
        said = [f"{roof.bound}-bound, moves at least {words.size(roof.bytes)}"]
        if roof.floor_us:
            said.append(f"floor {words.microseconds(roof.floor_us)}")
        if roof.achieved_bytes_per_s:
            said.append(words.rate(roof.achieved_bytes_per_s, "B"))
        if roof.achieved_flops_per_s:
            said.append(words.rate(roof.achieved_flops_per_s, "FLOP"))
        if roof.share_of_floor is not None:
            said.append(f"takes {words.floors(roof.share_of_floor)}")
        parts.append(Text("  " + ", ".join(said)))
    for launch in found.launches:
        took = f", {words.microseconds(launch.duration_us)}" if launch.duration_us is not None else ""
        shape = f"grid {launch.grid}, block {launch.block}{took}"
        parts.append(Text(f"  launch {launch.index}: {words.one_line(launch.name, 80)}: {shape}"))
        table = Table.grid(padding=(0, 2))
        for metric in list(launch.metrics.values())[:MOST_METRICS]:
            value = words.significant(float(metric.value)) if isinstance(metric.value, int | float) else metric.value
            table.add_row("   ", Text(metric.name), Text(f"{value} {metric.unit}".rstrip()))
        parts.append(table)
        if len(launch.metrics) > MOST_METRICS:
            parts.append(Text(f"    and {len(launch.metrics) - MOST_METRICS} more metrics (--json has all)", "dim"))
    parts += [
        Text(f"  {hot.share:.0%} of stalls at {hot.file}:{hot.line}: {words.one_line(hot.text)}")
        for hot in found.hot_lines[:8]
    ]
    parts += [
        Text(f"  {r.file}:{r.line}: {r.kind}: {words.one_line(r.message, 120)}", "dim") for r in found.remarks[:12]
    ]
    parts += [Text(f"  note: {words.clean(note)}", "dim") for note in found.notes]
    return Group(*parts)
