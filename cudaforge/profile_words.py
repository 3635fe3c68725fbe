"""What of a profile is worth a line, and in which words: the same on a page of the viewer and in a notebook."""

from __future__ import annotations

import math

from cudaforge import words
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


def find_metric(profile: Profile, name: str) -> list[Metric]:
    """The metric of this name, or whose name begins with it, in every launch that has it, the longest launch first."""
    return [
        metric
        for launch in longest_first(profile)
        for metric in launch.metrics.values()
        if metric.name == name or metric.name.startswith(f"{name}.")
    ]


def longest_first(profile: Profile) -> list[Launch]:
    """The candidate's own launches, the longest first, then the others."""
    return sorted(profile.launches, key=lambda launch: (not launch.own, -(launch.duration_us or 0.0), launch.index))


def value_of(metric: Metric | None) -> float | None:
    """The value of a metric that is a number."""
    if metric is None or isinstance(metric.value, str):
        return None
    return float(metric.value) if math.isfinite(metric.value) else None


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


def stall_shares(launch: Launch) -> dict[str, float]:
    """Shares of the stall reasons, 0..1, out of the ratios of the `core` set; empty where it has none."""
    total = value_of(launch.metrics.get("smsp__average_warps_active_per_issue_active.ratio"))
    before, after = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
    found = {
        name.removeprefix(before).removesuffix(after): value_of(metric)
        for name, metric in launch.metrics.items()
        if name.startswith(before) and name.endswith(after)
    }
    return {name: value / total for name, value in found.items() if value is not None} if total else {}


def launch_facts(launch: Launch) -> list[tuple[str, str]]:
    """Registers, occupancy and its limiter, spills: what one looks for first."""
    facts: list[tuple[str, str]] = []
    registers = value_of(launch.metrics.get("launch__registers_per_thread"))
    if registers is not None:
        facts.append(("registers", f"{registers:.0f} a thread"))
    occupancy = value_of(launch.metrics.get("sm__warps_active.avg.pct_of_peak_sustained_active"))
    limits = {
        what: value
        for name, what in OCCUPANCY_LIMITS.items()
        if (value := value_of(launch.metrics.get(name))) is not None
    }
    if occupancy is not None:
        facts.append(("occupancy", f"{occupancy:.0f} % achieved"))
    if limits:
        least = min(limits.values())
        by = " and ".join(what for what, value in limits.items() if value == least)
        facts.append(("occupancy is limited by", f"{by}: {least:.0f} block{'s' * (least != 1)} an SM"))
    waves = value_of(launch.metrics.get("launch__waves_per_multiprocessor"))
    if waves is not None:
        facts.append(("waves", words.significant(waves, 3)))
    spilled = [value_of(launch.metrics.get(name)) for name in SPILLS]
    if any(value is not None for value in spilled):
        amount = sum(value or 0.0 for value in spilled)
        facts.append(("local memory", words.size(round(amount)) if amount else "none: no spills"))
    return facts


def copy_percent(profile: Profile) -> float | None:
    """The task's least bytes over the call's time, in percent of what a copy reaches on this device."""
    roof, ceiling = profile.roofline, profile.device.ceilings.copy_bytes_per_s
    if roof is None or not roof.achieved_bytes_per_s or not ceiling:
        return None
    return 100 * roof.achieved_bytes_per_s / ceiling


def facts_of(profile: Profile) -> list[tuple[str, str]]:
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
