"""A profile as text for an agent: time against the floor first, then launches, source lines, remarks.

Everything here ends up between fences: names of kernels and source lines are the kernel's own words.
"""

from __future__ import annotations

import re

from cudaforge.evaluation import Evaluation
from cudaforge.kernel import Kernel
from cudaforge_profiling.metrics import SPECS, STALL_MEANINGS
from cudaforge_profiling.types import HotLine, Launch, Metric, Profile, Remark, Roofline
from cudaforge_prompts.text import factor, percent, si, size, time

MAX_LAUNCHES = 12
MAX_HOT_LINES = 15
MAX_REMARKS = 30
MAX_STALLS = 8
STALL = re.compile(r"issue_stalled_|average_warps_active_per_issue_active")
SAID_IN_HEAD = {"gpu__time_duration.sum", "launch__grid_size", "launch__block_size"}
DRAM_BYTES = (
    ("dram__bytes_read.sum", "dram__bytes_op_read.sum"),
    ("dram__bytes_write.sum", "dram__bytes_op_write.sum"),
)


def profile_context(
    profile: Profile | None, kernel: Kernel, evaluation: Evaluation, *, metrics_only: bool
) -> dict[str, object]:
    """What the section with a profile needs; `sampled` is whether there are launches to be read."""
    return {
        "profile_text": profile_text(profile, kernel, evaluation, metrics_only=metrics_only),
        "sampled": bool(profile and (profile.launches or profile.hot_lines)),
    }


def profile_text(
    profile: Profile | None, kernel: Kernel, evaluation: Evaluation | None = None, *, metrics_only: bool = False
) -> str:
    """What the profile of `kernel` says; never empty: a missing profile says that it is missing.

    `metrics_only` is the paper's view: the counters (on a CPU the achieved rates that stand in for them),
    without times, floor and source lines.
    """
    if profile is None:
        return "No profile was made."
    parts = []
    if evaluation and len(evaluation.workloads) > 1:
        first = evaluation.workloads[0]
        parts.append(f"Only the first workload is profiled: {first.workload}")
        profile = profile.model_copy(update={"roofline": _taking(profile.roofline, first.kernel.median_us)})
    if profile.unavailable:
        parts.append(f"No hardware counters: {profile.unavailable}")
    if profile.roofline and (not metrics_only or not profile.launches):
        parts.append(_roofline(profile, profile.roofline, floor=not metrics_only))
    if profile.launches:
        parts.append(_launches(profile, metrics_only))
    if not metrics_only:
        if profile.hot_lines:
            parts.append(_hot_lines(profile.hot_lines, kernel))
        remarks = profile.remarks or (evaluation.build.remarks if evaluation and evaluation.build else ())
        if remarks:
            parts.append(_remarks(remarks, kernel))
        parts += [f"note: {note}" for note in profile.notes]
    return "\n\n".join(part for part in parts if part) or f"{profile.tool} gave no measurements."


def _taking(roofline: Roofline | None, us: float) -> Roofline | None:
    """The same for a kernel that takes `us`: it may have been made with the mean time over all workloads."""
    if roofline is None:
        return None
    rates = {
        "achieved_bytes_per_s": roofline.bytes / us * 1e6,
        "achieved_flops_per_s": roofline.flops / us * 1e6 if roofline.flops else None,
        "share_of_floor": roofline.floor_us / us if roofline.floor_us else None,
    }
    return roofline.model_copy(update=rates)


def _roofline(profile: Profile, roofline: Roofline, *, floor: bool) -> str:
    ceilings = profile.device.ceilings
    lines = []
    if floor and roofline.floor_us:
        taken = f"; the kernel takes {factor(1 / roofline.share_of_floor)} that time" if roofline.share_of_floor else ""
        lines.append(f"floor (an estimate) {time(roofline.floor_us)}, bound by {roofline.bound}{taken}")
    if roofline.achieved_bytes_per_s:
        line = f"achieved {si(roofline.achieved_bytes_per_s)}B/s of the least bytes ({size(roofline.bytes)})"
        if copy := ceilings.copy_bytes_per_s:
            line += f": {factor(roofline.achieved_bytes_per_s / copy)} the measured copy rate, {si(copy)}B/s"
            if roofline.achieved_bytes_per_s > copy:
                line += " (caches hold a part of it, or it reads more than a copy does)"
        lines.append(line)
    if roofline.achieved_flops_per_s:
        line = f"achieved {si(roofline.achieved_flops_per_s)}FLOP/s of the reference's operations"
        peaks = ", ".join(f"{dtype} {si(rate)}FLOP/s" for dtype, rate in ceilings.flops_per_s.items())
        lines.append(line + (f"; measured matrix products: {peaks}" if peaks else ""))
    return "\n".join(lines)


def _launches(profile: Profile, metrics_only: bool) -> str:
    own = [launch for launch in profile.launches if launch.own]
    others = [launch for launch in profile.launches if not launch.own]
    lines = [f"{len(own)} of {len(profile.launches)} launches are this kernel's own ({profile.tool})"]
    if len(own) > MAX_LAUNCHES:
        longest = sorted(own, key=lambda launch: launch.duration_us or 0.0, reverse=True)[:MAX_LAUNCHES]
        own = sorted(longest, key=lambda launch: launch.index)
        lines[0] += f"; the {MAX_LAUNCHES} longest follow"
    lines += [_launch(launch, metrics_only) for launch in own]
    if others and not metrics_only:
        names = list(dict.fromkeys(launch.name[:120] for launch in others))[:8]
        lines.append("other launches (PyTorch, libraries): " + "; ".join(names))
    moved = _moved_bytes([launch for launch in profile.launches if launch.own])
    if moved and profile.roofline and profile.roofline.bytes and not metrics_only:
        ratio = moved / profile.roofline.bytes
        lines.append(
            f"DRAM bytes moved by own launches: {size(moved)}, {ratio:.2f}x the least ({size(profile.roofline.bytes)})"
        )
    return "\n".join(lines)


def _launch(launch: Launch, metrics_only: bool) -> str:
    grid, block = ("x".join(map(str, dims)) for dims in (launch.grid, launch.block))
    head = f"launch {launch.index}: {launch.name[:200]}, grid {grid}, block {block}"
    if metrics_only:
        shown = [m for m in launch.metrics.values() if not m.name.startswith("gpu__time_duration")]
        return "\n".join([head, *(f"  {metric.name}: {_value(metric)}" for metric in shown)])
    if launch.duration_us is not None:
        head += f", {time(launch.duration_us)} under the profiler"
    lines = [head]
    for metric in launch.metrics.values():
        if metric.name in SAID_IN_HEAD or (launch.stalls and STALL.search(metric.name)):
            continue
        meaning = f" ({SPECS[metric.name].meaning})" if metric.name in SPECS else ""
        lines.append(f"  {metric.name}: {_value(metric)}{meaning}")
    if launch.stalls:
        lines.append("  what its warps did, as shares of their time:")
        largest = sorted(launch.stalls.items(), key=lambda item: item[1], reverse=True)[:MAX_STALLS]
        for reason, share in largest:
            meaning = f" ({STALL_MEANINGS[reason]})" if reason in STALL_MEANINGS else ""
            lines.append(f"    {percent(share):>7} {reason}{meaning}")
    return "\n".join(lines)


def _value(metric: Metric) -> str:
    value, unit = metric.value, metric.unit
    if isinstance(value, str):
        return f"{value} {unit}".rstrip()
    if unit in ("byte", "bytes"):
        return size(value)
    if unit in ("byte/second", "bytes/second", "byte/s"):
        return f"{si(value)}B/s"
    if unit in ("nsecond", "ns"):
        return time(value / 1000)
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{number} {unit}".rstrip()


def _moved_bytes(own: list[Launch]) -> float | None:
    """DRAM traffic of all own launches; None where a launch lacks the counters or counts in other units."""
    total = 0.0
    for launch in own:
        for names in DRAM_BYTES:
            metric = next((launch.metrics[name] for name in names if name in launch.metrics), None)
            if metric is None or isinstance(metric.value, str) or metric.unit not in ("", "byte", "bytes"):
                return None
            total += metric.value
    return total


def _hot_lines(hot_lines: tuple[HotLine, ...], kernel: Kernel) -> str:
    lines = ["share of the stall samples by source line:"]
    for hot in sorted(hot_lines, key=lambda line: line.share, reverse=True)[:MAX_HOT_LINES]:
        place = f"{hot.file}:{hot.line}" if hot.line > 0 else "no source line"
        stalls = f" [{_shares(hot.stalls, 2)}]" if hot.stalls else ""
        text = hot.text.strip() or _source_line(kernel, hot.file, hot.line)
        lines.append(f"  {percent(hot.share):>7} {place}{stalls}" + (f" | {text}" if text else ""))
    return "\n".join(lines)


def _remarks(remarks: tuple[Remark, ...], kernel: Kernel) -> str:
    order = {"resource": 0, "missed": 1, "vectorized": 2, "note": 3}
    lines = ["the compiler's remarks:"]
    unique = list(dict.fromkeys(remarks))
    for remark in sorted(unique, key=lambda r: (order[r.kind], r.line))[:MAX_REMARKS]:
        place = f"{remark.file}:{remark.line}" if remark.line > 0 else remark.file
        text = _source_line(kernel, remark.file, remark.line)
        lines.append(f"  {place} {remark.kind}: {remark.message}" + (f" | {text}" if text else ""))
    if len(unique) > MAX_REMARKS:
        lines.append(f"  ... and {len(unique) - MAX_REMARKS} more")
    return "\n".join(lines)


def _source_line(kernel: Kernel, file: str, line: int) -> str:
    lines = kernel.files.get(file, "").split("\n")
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _shares(parts: dict[str, float], limit: int) -> str:
    total = sum(parts.values()) or 1.0
    largest = sorted(parts.items(), key=lambda item: item[1], reverse=True)[:limit]
    return ", ".join(f"{name} {percent(value / total)}" for name, value in largest if value > 0)
