"""What the profiler saw, as a page shows it: speed-of-light bars, roofline, stalls, metrics with their change."""

from __future__ import annotations

from dataclasses import dataclass

from cudaforge import words
from cudaforge.profile_words import (
    BARS,
    change_of,
    copy_percent,
    facts_of,
    launch_facts,
    longest_first,
    number,
    stall_shares,
    value_of,
)
from cudaforge_api.viewer.islands import Bar, ComputeRoof, Light, MemoryRoof, Point, Reason, Roofline, Stalls
from cudaforge_profiling.metrics import SPECS, STALL_MEANINGS
from cudaforge_profiling.types import Launch, Metric, Profile


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
    launches = longest_first(profile)
    before = longest_first(parent) if parent else []
    total = sum(launch.duration_us or 0.0 for launch in launches)
    views = [_launch_view(launch, _same(launch, index, before), total) for index, launch in enumerate(launches)]
    roof, why = _roofline(profile, parent, title, parent_title)
    return ProfileView(
        profile=profile,
        launches=views,
        light=_light(profile, launches, parent, before),
        roofline=roof,
        why_no_roofline=why,
        facts=facts_of(profile),
    )


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
        facts=launch_facts(launch),
        metrics=[_metric_line(metric, parent) for metric in launch.metrics.values()],
        stalls=_stalls(launch, parent),
    )


def _dims(dims: tuple[int, int, int]) -> str:
    return " × ".join(str(d) for d in dims)


def _metric_line(metric: Metric, parent: Launch | None) -> MetricLine:
    before = parent.metrics.get(metric.name) if parent else None
    value, earlier = value_of(metric), value_of(before)
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
    value = value_of(metric)
    return words.one_line(str(metric.value), 80) if value is None else number(value)


def _stalls(launch: Launch, parent: Launch | None) -> Stalls | None:
    """What the warps did, the largest share first; also out of the ratios of the `core` set."""
    shares = launch.stalls or stall_shares(launch)
    if not shares:
        return None
    before = (parent.stalls or stall_shares(parent)) if parent else {}
    listed = sorted(shares.items(), key=lambda item: -item[1])
    reasons = tuple(
        Reason(name=name, share=share, parent=before.get(name)) for name, share in listed if share >= 0.0005
    )
    meaning = STALL_MEANINGS.get(reasons[0].name, "") if reasons else ""
    return Stalls(reasons=reasons, note=f"{reasons[0].name}: {meaning}" if meaning else "")


def _light(profile: Profile, launches: list[Launch], parent: Profile | None, before: list[Launch]) -> Light | None:
    """Percent of the peaks, of the longest launch, and of the measured copy rate over the whole call."""
    bars: list[Bar] = []
    if launches:
        launch = launches[0]
        other = _same(launch, 0, before)
        for name, metric in launch.metrics.items():
            base, value = name.split(".", 1)[0], value_of(metric)
            if base in BARS and value is not None and "pct_of_peak" in name:
                earlier = value_of(other.metrics.get(name)) if other else None
                bars.append(Bar(name=BARS[base], percent=value, parent=earlier))
    copied = copy_percent(profile)
    if copied is not None:
        earlier = copy_percent(parent) if parent else None
        bars.append(Bar(name="least bytes / copy rate", percent=copied, parent=earlier))
    return Light(bars=tuple(bars)) if bars else None


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
