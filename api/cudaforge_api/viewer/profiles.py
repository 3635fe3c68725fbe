"""What the profiler saw, as a page shows it: speed-of-light bars, roofline, stalls, metrics with their change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cudaforge import words
from cudaforge_api.viewer.islands import Bar, ComputeRoof, Light, MemoryRoof, Point, Reason, Roofline, Stalls
from cudaforge_profiling.metrics import SPECS, STALL_MEANINGS
from cudaforge_profiling.types import Launch, Metric, Profile

BARS = {
    "sm__throughput": "SM",
    "smsp__issue_active": "issue slots",
    "sm__inst_executed_pipe_fma": "FMA pipe",
    "sm__inst_executed_pipe_fp32": "FP32 pipe",
    "sm__pipe_tensor_cycles_active": "tensor pipe",
    "sm__inst_executed_pipe_tensor": "tensor pipe, instructions",
    "l1tex__throughput": "L1 and shared memory",
    "lts__throughput": "L2",
    "dram__throughput": "device memory",
    "gpu__dram_throughput": "device memory and its path",
    "sm__warps_active": "occupancy",
}
"""Metrics in percent of a peak, by what stands before the first dot; the rest is in the table alone."""
OCCUPANCY_LIMITS = {
    "launch__occupancy_limit_registers": "registers",
    "launch__occupancy_limit_shared_mem": "shared memory",
    "launch__occupancy_limit_warps": "warps per SM",
    "launch__occupancy_limit_blocks": "blocks per SM",
}
SPILLS = ("l1tex__t_bytes_pipe_lsu_mem_local_op_ld.sum", "l1tex__t_bytes_pipe_lsu_mem_local_op_st.sum")


@dataclass(frozen=True)
class MetricLine:
    """One counter, and what it was in the kernel that this one was made from."""

    name: str
    meaning: str
    value: str
    unit: str
    parent: str
    change: str
    """As `change_of` says it."""


@dataclass(frozen=True)
class LaunchView:
    """One launch of a kernel."""

    launch: Launch
    name: str
    shape: str
    share: float | None
    """Of the time of all launches."""
    facts: list[tuple[str, str]]
    metrics: list[MetricLine]
    stalls: Stalls | None


@dataclass(frozen=True)
class ProfileView:
    """A profile, beside its parent's where there is one."""

    profile: Profile
    launches: list[LaunchView]
    """The longest first."""
    light: Light | None
    roofline: Roofline | None
    why_no_roofline: str
    facts: list[tuple[str, str]]


def profile_view(profile: Profile, parent: Profile | None, title: str, parent_title: str) -> ProfileView:
    """A profile as the page shows it. The titles name the two kernels: `round 3`."""
    launches = _longest_first(profile)
    before = _longest_first(parent) if parent else []
    total = sum(launch.duration_us or 0.0 for launch in launches)
    views = [_launch_view(launch, _same(launch, index, before), total) for index, launch in enumerate(launches)]
    roof, why = _roofline(profile, parent, title, parent_title)
    return ProfileView(
        profile=profile,
        launches=views,
        light=_light(profile, launches, parent, before),
        roofline=roof,
        why_no_roofline=why,
        facts=_facts(profile),
    )


def find_metric(profile: Profile, name: str) -> list[Metric]:
    """The metric of this name, or whose name begins with it, in every launch that has it, the longest launch first."""
    return [
        metric
        for launch in _longest_first(profile)
        for metric in launch.metrics.values()
        if metric.name == name or metric.name.startswith(f"{name}.")
    ]


def _longest_first(profile: Profile) -> list[Launch]:
    return sorted(profile.launches, key=lambda launch: (not launch.own, -(launch.duration_us or 0.0), launch.index))


def _same(launch: Launch, index: int, before: list[Launch]) -> Launch | None:
    """The parent's launch to compare with: of the same name, else the one in the same place."""
    named = next((other for other in before if other.name == launch.name), None)
    return named or (before[index] if index < len(before) else None)


def _launch_view(launch: Launch, parent: Launch | None, total: float) -> LaunchView:
    took = launch.duration_us
    return LaunchView(
        launch=launch,
        name=words.one_line(launch.name, 200),
        shape=f"grid {_dims(launch.grid)}, block {_dims(launch.block)}",
        share=took / total if took is not None and total > 0 else None,
        facts=_launch_facts(launch),
        metrics=[_metric_line(metric, parent) for metric in launch.metrics.values()],
        stalls=_stalls(launch, parent),
    )


def _dims(dims: tuple[int, int, int]) -> str:
    return " × ".join(str(d) for d in dims)


def _number(metric: Metric | None) -> float | None:
    """The value of a metric that is a number."""
    if metric is None or isinstance(metric.value, str):
        return None
    return float(metric.value) if math.isfinite(metric.value) else None


def _metric_line(metric: Metric, parent: Launch | None) -> MetricLine:
    before = parent.metrics.get(metric.name) if parent else None
    value, earlier = _number(metric), _number(before)
    change = change_of(value, earlier) if value is not None and earlier is not None else ""
    spec = SPECS.get(metric.name)
    return MetricLine(
        name=metric.name,
        meaning=spec.meaning if spec else "",
        value=_shown(metric),
        unit=words.one_line(metric.unit, 40),
        parent=_shown(before) if before else "",
        change=change,
    )


def _shown(metric: Metric) -> str:
    value = _number(metric)
    return words.one_line(str(metric.value), 80) if value is None else number(value)


def number(value: float) -> str:
    """`12,345`; four digits where it is small and no whole number."""
    if abs(value) < 1e15 and (value.is_integer() or abs(value) >= 1e5):
        return words.count(round(value))
    return words.significant(value)


def change_of(value: float, earlier: float) -> str:
    """`+12 %`, `×23` where it grew to ten times or more, `=` where nothing changed; empty from zero."""
    if value == earlier:
        return "="
    if earlier == 0:
        return ""
    if value / earlier >= 10:
        return f"×{value / earlier:,.0f}"
    percent = 100 * (value - earlier) / abs(earlier)
    return "≈" if abs(percent) < 0.5 else f"{percent:+.0f} %"


def _stalls(launch: Launch, parent: Launch | None) -> Stalls | None:
    """What the warps did, the largest share first; also out of the ratios of the `core` set."""
    shares = launch.stalls or _stall_shares(launch)
    if not shares:
        return None
    before = (parent.stalls or _stall_shares(parent)) if parent else {}
    listed = sorted(shares.items(), key=lambda item: -item[1])
    reasons = tuple(
        Reason(name=name, share=share, parent=before.get(name)) for name, share in listed if share >= 0.0005
    )
    meaning = STALL_MEANINGS.get(reasons[0].name, "") if reasons else ""
    return Stalls(reasons=reasons, note=f"{reasons[0].name}: {meaning}" if meaning else "")


def _stall_shares(launch: Launch) -> dict[str, float]:
    total = _number(launch.metrics.get("smsp__average_warps_active_per_issue_active.ratio"))
    before, after = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
    found = {
        name.removeprefix(before).removesuffix(after): _number(metric)
        for name, metric in launch.metrics.items()
        if name.startswith(before) and name.endswith(after)
    }
    return {name: value / total for name, value in found.items() if value is not None} if total else {}


def _launch_facts(launch: Launch) -> list[tuple[str, str]]:
    """Registers, occupancy and its limiter, spills: what one looks for first."""
    facts: list[tuple[str, str]] = []
    registers = _number(launch.metrics.get("launch__registers_per_thread"))
    if registers is not None:
        facts.append(("registers", f"{registers:.0f} a thread"))
    occupancy = _number(launch.metrics.get("sm__warps_active.avg.pct_of_peak_sustained_active"))
    limits = {
        what: value
        for name, what in OCCUPANCY_LIMITS.items()
        if (value := _number(launch.metrics.get(name))) is not None
    }
    if occupancy is not None:
        facts.append(("occupancy", f"{occupancy:.0f} % achieved"))
    if limits:
        least = min(limits.values())
        by = " and ".join(what for what, value in limits.items() if value == least)
        facts.append(("occupancy is limited by", f"{by}: {least:.0f} block{'s' * (least != 1)} an SM"))
    waves = _number(launch.metrics.get("launch__waves_per_multiprocessor"))
    if waves is not None:
        facts.append(("waves", words.significant(waves, 3)))
    spilled = [_number(launch.metrics.get(name)) for name in SPILLS]
    if any(value is not None for value in spilled):
        amount = sum(value or 0.0 for value in spilled)
        facts.append(("local memory", words.size(round(amount)) if amount else "none: no spills"))
    return facts


def _light(profile: Profile, launches: list[Launch], parent: Profile | None, before: list[Launch]) -> Light | None:
    """Percent of the peaks, of the longest launch, and of the measured copy rate over the whole call."""
    bars: list[Bar] = []
    if launches:
        launch = launches[0]
        other = _same(launch, 0, before)
        for name, metric in launch.metrics.items():
            base, value = name.split(".", 1)[0], _number(metric)
            if base in BARS and value is not None and "pct_of_peak" in name:
                earlier = _number(other.metrics.get(name)) if other else None
                bars.append(Bar(name=BARS[base], percent=value, parent=earlier))
    copied = _copy_percent(profile)
    if copied is not None:
        earlier = _copy_percent(parent) if parent else None
        bars.append(Bar(name="least bytes / copy rate", percent=copied, parent=earlier))
    return Light(bars=tuple(bars)) if bars else None


def _copy_percent(profile: Profile) -> float | None:
    """The task's least bytes over the call's time, in percent of what a copy reaches on this device."""
    roof, ceiling = profile.roofline, profile.device.ceilings.copy_bytes_per_s
    if roof is None or not roof.achieved_bytes_per_s or not ceiling:
        return None
    return 100 * roof.achieved_bytes_per_s / ceiling


def _roofline(profile: Profile, parent: Profile | None, title: str, parent_title: str) -> tuple[Roofline | None, str]:
    ceilings = profile.device.ceilings
    if profile.roofline is None:
        return None, "the bytes that the task must move were not recorded"
    if not ceilings.copy_bytes_per_s or not ceilings.flops_per_s:
        return None, "the device's ceilings were not measured"
    points = [
        Point(title=name, intensity=roof.flops / roof.bytes, ops_per_s=roof.achieved_flops_per_s, kind=kind)
        for found, name, kind in ((profile, title, "this"), (parent, parent_title, "parent"))
        if found and (roof := found.roofline) and roof.flops and roof.bytes and roof.achieved_flops_per_s
    ]
    if not points:
        return None, "the operations of this task's reference cannot be counted, so it has no arithmetic intensity"
    roofs = tuple(ComputeRoof(label=name, ops_per_s=rate) for name, rate in ceilings.flops_per_s.items() if rate > 0)
    memory = MemoryRoof(label="copy", bytes_per_s=ceilings.copy_bytes_per_s)
    return Roofline(memory=memory, compute=roofs, points=tuple(points)), ""


def _facts(profile: Profile) -> list[tuple[str, str]]:
    """The roofline in words, as the terminal has them."""
    roof = profile.roofline
    if roof is None:
        return []
    facts = [("bound", roof.bound), ("moves at least", words.size(roof.bytes))]
    if roof.flops:
        facts.append(("operations", f"{roof.flops / 1e9:.4g} GFLOP"))
    if roof.floor_us:
        facts.append(("floor", words.microseconds(roof.floor_us)))
    if roof.achieved_bytes_per_s:
        facts.append(("reached", words.rate(roof.achieved_bytes_per_s, "B")))
    if roof.achieved_flops_per_s:
        facts.append(("arithmetic", words.rate(roof.achieved_flops_per_s, "FLOP")))
    if roof.share_of_floor is not None:
        facts.append(("takes", words.floors(roof.share_of_floor)))
    return facts
