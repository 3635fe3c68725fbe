"""`history` and `roofline`: a result as matplotlib axes. Needs the `notebook` extra, and says so without it."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING, Any

from cudaforge import words
from cudaforge.notebook import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cudaforge.evaluation import Interval
    from cudaforge_profiling.types import Device, Profile

PASSED, BEST, VERIFIED, FAILED, ROOF = "#2f6fed", "#2f6fed", "#12813f", "#c8372d", "#6b7280"
DECADES = 1.5
"""Room on both sides of the points of a roofline, in decades."""
LEGIBLE = 1.4
"""Roofs nearer to one another than by this factor share a label."""


def history(result: Any, ax: Axes | None = None) -> Axes:
    """Speedup over eager (no unit, logarithmic) of each round with its 95 % interval; failed rounds below by verdict.

    The step line is the best so far, the dashed one the verified speedup with its interval. `result` is a RunResult;
    `ax` is drawn on where given, else a new figure is made. Raises UsageError where matplotlib is missing.
    """
    ax = _axes(ax, (7.2, 3.6))
    attempts = result.attempts
    timed = [(a.round, a.speedup.eager) for a in attempts if a.speedup is not None]
    if timed:
        numbers, values = [n for n, _ in timed], [s.value for _, s in timed]
        below, above = [max(0.0, s.value - s.low) for _, s in timed], [max(0.0, s.high - s.value) for _, s in timed]
        ax.errorbar(numbers, values, yerr=[below, above], fmt="o", ms=5, capsize=3, color=PASSED, label="round, 95 %")
        best = [max(values[: i + 1]) for i in range(len(values))]
        ends = [*numbers, attempts[-1].round], [*best, best[-1]]
        ax.step(*ends, where="post", color=BEST, alpha=0.45, label="best so far")
    if (verified := _verified(result)) is not None:
        said = f"verified {words.interval(verified)}"
        ax.axhline(verified.value, color=VERIFIED, ls="--", lw=1.4, label=said)
        ax.axhspan(verified.low, verified.high, color=VERIFIED, alpha=0.12, lw=0)
    ax.axhline(1.0, color=ROOF, ls=":", lw=1.2)
    _logarithmic(ax, timed, verified)
    for attempt in attempts:
        if attempt.speedup is None and (attempt.verdict or attempt.reply_error):
            symbol = words.SYMBOLS[attempt.verdict.value][0] if attempt.verdict else "✗"
            said = attempt.verdict.value if attempt.verdict else "no kernel"
            ax.annotate(
                f"{symbol} {said}",
                (attempt.round, 0.02),
                xycoords=ax.get_xaxis_transform(),
                rotation=90,
                ha="center",
                va="bottom",
                color=FAILED,
                fontsize=8,
                family="DejaVu Sans",
            )
    numbers = [a.round for a in attempts] or [0]
    ax.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("round")
    ax.set_ylabel("speedup over eager (×)")
    ax.set_title(words.one_line(result.run.spec.task.name, 60).replace("$", r"\$"))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", fontsize=8, framealpha=0.8)
    return ax


def _logarithmic(ax: Axes, timed: list[tuple[int, Interval]], verified: Interval | None) -> None:
    """A logarithmic axis whose ticks read 0.5x, 1x, 2x."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ends = [1.0, *(end for _, s in timed for end in (s.low, s.high)), *([verified.high] if verified else [])]
    usable = [end for end in ends if 0 < end < math.inf]
    ax.set_yscale("log")
    ax.set_ylim(min(usable) / 1.5, max(usable) * 1.3)
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, axis="y", alpha=0.25)


def _verified(result: Any) -> Interval | None:
    outcome = result.run.outcome
    won = outcome is not None and outcome.win and outcome.speedup is not None
    return outcome.speedup.eager if won else None


def roofline(result: Any, ax: Axes | None = None) -> Axes:
    """Arithmetic intensity (FLOP/B, the task's least bytes) against achieved FLOP/s, both logarithmic.

    The slanted roof is the measured copy rate, the flat ones the measured matrix products by dtype; the mark on them is
    the task's floor. Points are the kernels whose profile knows operations and bytes. Where there is none, the axes say
    why in one sentence. `result` is a RunResult; `ax` as for `history`. Raises UsageError where matplotlib is missing.
    """
    ax = _axes(ax, (7.2, 4.4))
    ax.set_xlabel("arithmetic intensity (FLOP/B)")
    ax.set_ylabel("achieved (FLOP/s)")
    ax.set_title(words.one_line(result.run.spec.task.name, 60).replace("$", r"\$"))
    profiles = [(a.round, p) for a in result.attempts if (p := result.profile(a)) is not None]
    if why := why_no_roofline(profiles):
        ax.text(0.5, 0.5, fill(f"No roofline: {why}.", 56), ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
        return ax
    drawn = [(n, r.flops / r.bytes, r.achieved_flops_per_s) for n, p in profiles if (r := _usable(p))]
    device = profiles[-1][1].device
    low, high = min(i for _, i, _ in drawn) / 10**DECADES, max(i for _, i, _ in drawn) * 10**DECADES
    top = _roofs(ax, device, low, high)
    for number, intensity, rate in drawn:
        ax.plot([intensity], [rate], "o", ms=6, color=PASSED)
        ax.annotate(f"#{number}", (intensity, rate), xytext=(7, -3), textcoords="offset points", fontsize=8)
    floors = {
        (r.flops / r.bytes, r.flops / (r.floor_us / 1e6)) for _, p in profiles if (r := _usable(p)) and r.floor_us
    }
    for index, (intensity, rate) in enumerate(sorted(floors)):
        label = "floor: all that the device allows" if index == 0 else None
        ax.plot([intensity], [rate], marker="_", ms=16, mew=2.5, ls="", color=VERIFIED, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(min(rate for _, _, rate in drawn) / 4, top * 2.5)
    ax.grid(True, which="major", alpha=0.25)
    ax.legend(loc="lower right", fontsize=8, framealpha=0.8)
    return ax


def why_no_roofline(profiles: list[tuple[int, Profile]]) -> str:
    """Why no roofline can be drawn of these (round, profile); empty where it can."""
    if not profiles:
        return "no kernel of this run was profiled"
    ceilings = profiles[-1][1].device.ceilings
    if not ceilings.copy_bytes_per_s or not ceilings.flops_per_s:
        return "the ceilings of this device were not measured"
    if all(profile.roofline is None for _, profile in profiles):
        return "the bytes that the task must move were not recorded"
    if not any(_usable(profile) for _, profile in profiles):
        return "the operations of this task's reference cannot be counted, so it has no arithmetic intensity"
    return ""


def _usable(profile: Profile) -> Any:
    """The roofline of a profile that knows operations, bytes and the achieved rate, else None."""
    roof = profile.roofline
    return roof if roof and roof.flops and roof.bytes and roof.achieved_flops_per_s else None


def _roofs(ax: Axes, device: Device, low: float, high: float) -> float:
    """Draws the device's roofs between two intensities; returns the highest rate."""
    copied, rates = device.ceilings.copy_bytes_per_s or 0.0, device.ceilings.flops_per_s
    top = max(rates.values())
    said = ""
    ridge = min(top / copied, high)
    ax.plot([low, ridge], [low * copied, ridge * copied], color=ROOF, lw=1.6, label=f"copy {words.rate(copied, 'B')}")
    within = sorted((rate, name) for name, rate in rates.items() if 0 < rate / copied < high)
    for index, (rate, name) in enumerate(within):
        ax.plot([max(low, rate / copied), high], [rate, rate], color=ROOF, lw=1.2)
        near = index > 0 and rate / within[index - 1][0] < LEGIBLE
        said = f"{name} {words.rate(rate, 'FLOP')}" if not near else f"{name} {words.rate(rate, 'FLOP')}, {said}"
        if index + 1 == len(within) or within[index + 1][0] / rate >= LEGIBLE:
            ax.annotate(said, (high, rate), xytext=(-3, 2), textcoords="offset points", ha="right", fontsize=8)
    return within[-1][0] if within else high * copied


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    pyplot = need("matplotlib.pyplot", "A plot")
    made: Axes = pyplot.subplots(figsize=size, layout="constrained")[1]
    return made
