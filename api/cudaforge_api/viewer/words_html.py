"""Filters of the templates: what the terminal has no need of. All return plain text, which the templates escape."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cudaforge.evaluation import Verdict
from cudaforge.words import UNKNOWN, bracket, percent, standing

VERDICT_NAMES = {
    "PASSED": "passed",
    "BUILD_FAILED": "build failed",
    "RUNTIME_ERROR": "runtime error",
    "TIMEOUT": "timeout",
    "INCORRECT": "incorrect",
    "REJECTED": "rejected",
    "INFRASTRUCTURE": "infrastructure",
}


def span(seconds: float | None) -> str:
    """A duration as a table has room for it: `20ms`, `0.4s`, `12s`, `4m12s`, `2h03m`."""
    if seconds is None:
        return "–"
    if seconds < 0.0995:
        return f"{1000 * max(seconds, 0.0):.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def ago(moment: datetime) -> str:
    """`now`, `2 min ago`, `3 h ago`, then the day."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 45:
        return "now"
    if seconds < 3570:
        return f"{round(seconds / 60)} min ago"
    if seconds < 24 * 3570:
        return f"{round(seconds / 3600)} h ago"
    return f"{moment:%Y-%m-%d}"


def stamp(moment: datetime) -> str:
    """To the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def off(ratio: float) -> str:
    """How far a ratio that should be 1 is from it, in per cent: `+0.02`."""
    return f"{100 * (ratio - 1):+.2f}"


def verdict_name(verdict: Verdict | str | None) -> str:
    """In lower case, with spaces."""
    return VERDICT_NAMES.get(str(verdict), str(verdict)) if verdict else "under way"


def usd(value: float | None, digits: int = 2) -> str:
    """Dollars with a fixed number of decimals, to be aligned in a column."""
    return UNKNOWN if value is None else f"${value:.{digits}f}"


FILTERS: dict[str, Callable[..., Any]] = {
    "span": span,
    "ago": ago,
    "stamp": stamp,
    "percent": percent,
    "standing": standing,
    "bracket": bracket,
    "off": off,
    "verdict_name": verdict_name,
    "usd": usd,
}
