"""Small drawings that need no script: sparklines, whiskers of intervals, marks of verdicts. Inline SVG.

Only numbers and names of our own go into them. `%.1f` of a float is digits, so nothing here can be markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from cudaforge.evaluation import Interval, Verdict
from cudaforge.shapes import RoundPoint

SPARK_WIDTH, SPARK_HEIGHT = 72.0, 18.0
WHISKER_WIDTH, WHISKER_HEIGHT = 64.0, 12.0

MARKS = {
    Verdict.PASSED: '<circle cx="6" cy="6" r="5"/><path class="ink" d="M3.4 6.2 5.3 8.1 8.8 4.2"/>',
    Verdict.BUILD_FAILED: '<path class="stroke" d="M2 2 10 10M10 2 2 10"/>',
    Verdict.RUNTIME_ERROR: '<path d="M6 .8 11.6 10.8H.4z"/><path class="ink" d="M6 4.2V7M6 8.6V9.2"/>',
    Verdict.TIMEOUT: '<path d="M1.5 1H10.5L7 6 10.5 11H1.5L5 6z"/>',
    Verdict.INCORRECT: '<path class="stroke" d="M1.5 4.2H10.5M1.5 7.8H10.5M8.2 1.2 3.8 10.8"/>',
    Verdict.REJECTED: '<path class="stroke" d="M6 1.2A4.8 4.8 0 1 1 6 10.8 4.8 4.8 0 1 1 6 1.2M2.7 9.3 9.3 2.7"/>',
    Verdict.INFRASTRUCTURE: '<path d="M6 .5 11.5 6 6 11.5.5 6z"/><path class="ink" d="M6 3.2V6.4M6 8.2V8.8"/>',
}
"""One shape for each verdict, within 12 x 12."""
NO_MARK = '<circle class="stroke" cx="6" cy="6" r="4.6"/>'


def mark(verdict: Verdict | str | None, failed: bool = False) -> Markup:
    """The shape of a verdict. None is a round under way, or with `failed` one that came to no kernel."""
    shape = MARKS[Verdict(verdict)] if verdict else MARKS[Verdict.BUILD_FAILED] if failed else NO_MARK
    return Markup(f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{shape}</svg>')


def best_so_far(points: Iterable[RoundPoint]) -> list[tuple[int, float]]:
    """Round and best speedup up to it, for each round that passed."""
    found: list[tuple[int, float]] = []
    for point in points:
        if point.speedup is not None and math.isfinite(point.speedup) and point.speedup > 0:
            found.append((point.round, max(point.speedup, found[-1][1]) if found else point.speedup))
    return found


def sparkline(points: Sequence[RoundPoint], rounds: int) -> Markup:
    """The best speedup so far as a step line over the budget's rounds, on a logarithmic scale, with a rule at 1."""
    best = best_so_far(points)
    if not best:
        return Markup("")
    last = max(rounds - 1, *(point.round for point in points), 1)
    top = max(math.log(best[-1][1]), math.log(1.25))
    bottom = min(math.log(best[0][1]), math.log(0.8))

    def place(number: int, value: float) -> tuple[float, float]:
        share = (math.log(value) - bottom) / (top - bottom)
        return 2 + (SPARK_WIDTH - 4) * number / last, SPARK_HEIGHT - 2 - (SPARK_HEIGHT - 4) * share

    x, y = place(*best[0])
    path = f"M{x:.1f} {y:.1f}"
    for number, value in best[1:]:
        x, y = place(number, value)
        path += f"H{x:.1f}V{y:.1f}"
    end = place(points[-1].round, best[-1][1])[0]
    path += f"H{end:.1f}"
    _, one = place(0, 1.0)
    words = f"best speedup by round: {best[0][1]:.2f}x to {best[-1][1]:.2f}x"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH:.0f} {SPARK_HEIGHT:.0f}" role="img" aria-label="{words}">'
        f'<path class="one" d="M0 {one:.1f}H{SPARK_WIDTH:.0f}"/><path class="line" d="{path}"/>'
        f'<circle cx="{end:.1f}" cy="{y:.1f}" r="1.8"/></svg>'
    )


def whisker(interval: Interval | None, scale: tuple[float, float] = (0.5, 4.0)) -> Markup:
    """A 95 % interval about its value, with a rule at 1, on a logarithmic scale that a whole column shares."""
    if interval is None or not 0 < interval.low <= interval.high < math.inf:
        return Markup("")
    low, high = (math.log(end) for end in scale)

    def place(value: float) -> float:
        return 2 + (WHISKER_WIDTH - 4) * min(max((math.log(value) - low) / (high - low), 0.0), 1.0)

    left, middle, right = place(interval.low), place(interval.value), place(interval.high)
    return Markup(
        f'<svg class="whisker" viewBox="0 0 {WHISKER_WIDTH:.0f} {WHISKER_HEIGHT:.0f}" aria-hidden="true">'
        f'<path class="one" d="M{place(1.0):.1f} 0V{WHISKER_HEIGHT:.0f}"/>'
        f'<path class="line" d="M{left:.1f} 6H{right:.1f}M{left:.1f} 3.5V8.5M{right:.1f} 3.5V8.5"/>'
        f'<circle cx="{middle:.1f}" cy="6" r="2.4"/></svg>'
    )


def scale_of(intervals: Iterable[Interval | None]) -> tuple[float, float]:
    """A scale that holds all of these, and 1 with some room on both sides."""
    listed = [interval for interval in intervals if interval is not None and 0 < interval.low <= interval.high]
    low = min([0.5, *(max(interval.low, 0.05) for interval in listed)])
    high = max([2.0, *(min(interval.high, 100.0) for interval in listed)])
    return low / 1.05, high * 1.05
