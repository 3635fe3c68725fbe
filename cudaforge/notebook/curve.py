"""The speedup of each round as inline SVG: no script, colours from the style sheet. Only numbers go in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cudaforge import words
from cudaforge.evaluation import Interval, Verdict

WIDTH, HEIGHT = 640.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 12.0, 34.0
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
MOST_LABELS = 16


@dataclass(frozen=True)
class Point:
    """One round. `speedup` over eager, None where there is none; `verdict` None: no kernel, or under way."""

    round: int
    speedup: Interval | None
    verdict: Verdict | None


def curve(points: Sequence[Point], verified: Interval | None = None) -> Markup:
    """Points with 95 % intervals on a logarithmic scale, the best so far as a step line, failures below as symbols."""
    if not points:
        return Markup()
    usable = {p.round: p.speedup for p in points if p.speedup and 0 < p.speedup.low <= p.speedup.high < math.inf}
    ends = [end for s in [*usable.values(), *([verified] if verified else [])] for end in (s.low, s.high) if end > 0]
    low, high = math.log(min([0.8, *ends]) / 1.1), math.log(max([1.25, *ends]) * 1.1)
    first, last = points[0].round, max(points[-1].round, points[0].round + 1)

    def x(number: float) -> float:
        return LEFT + 14 + (WIDTH - LEFT - RIGHT - 28) * (number - first) / (last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(value)) / (high - low)

    parts = []
    for tick in TICKS:
        if low <= math.log(tick) <= high:
            kind = "one" if tick == 1 else "grid"
            parts.append(f'<path class="{kind}" d="M{LEFT:.0f} {y(tick):.1f}H{WIDTH - RIGHT:.0f}"/>')
            parts.append(f'<text x="{LEFT - 6:.0f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}x</text>')
    if verified:
        parts.append(f'<path class="verified" d="M{LEFT:.0f} {y(verified.value):.1f}H{WIDTH - RIGHT:.0f}"/>')
    parts.append(_steps(usable, points[-1].round, x, y))
    each = math.ceil(len(points) / MOST_LABELS)
    for index, point in enumerate(points):
        at = x(point.round)
        if index % each == 0:
            parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 6:.0f}" text-anchor="middle">{point.round}</text>')
        speedup = usable.get(point.round)
        if speedup:
            parts.append(f'<path class="whisker" d="M{at:.1f} {y(speedup.low):.1f}V{y(speedup.high):.1f}"/>')
            parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{y(speedup.value):.1f}" r="3.5"/>')
        elif point.verdict:
            symbol, _ = words.SYMBOLS[point.verdict.value]
            place = f'x="{at:.1f}" y="{HEIGHT - BOTTOM + 10:.0f}" text-anchor="middle"'
            parts.append(f'<text class="failed" {place}>{symbol}<title>{point.verdict.value}</title></text>')
    best = max((s.value for s in usable.values()), default=None)
    said = f"speedup over eager by round, best {words.times(best)}" if best else "no round has a speedup yet"
    box = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}"'
    return Markup(f'<svg class="curve" {box} role="img" aria-label="{said}">{"".join(parts)}</svg>')


def _steps(usable: dict[int, Interval], last: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    best = 0.0
    path = ""
    for number, speedup in usable.items():
        if speedup.value > best:
            path += f"H{x(number):.1f}V{y(speedup.value):.1f}" if path else f"M{x(number):.1f} {y(speedup.value):.1f}"
            best = speedup.value
    return f'<path class="best" d="{path}H{x(last):.1f}"/>' if path else ""
