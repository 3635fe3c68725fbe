"""Where the time of a run went, out of its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cudaforge.trace import (
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
    RunSuspended,
    StageFinished,
    StageStarted,
    StoredEvent,
)
from cudaforge_api.viewer.islands import Gap, Lane, LaneKind, Span, Timeline
from cudaforge_api.viewer.words_html import span as duration

LANES: tuple[tuple[LaneKind, str], ...] = (
    ("coder", "coder"),
    ("judge", "judge"),
    ("baseline", "reference"),
    ("build", "build"),
    ("check", "check"),
    ("time", "time"),
    ("profile", "profile"),
    ("verify", "verify"),
    ("waiting", "waiting for the device"),
    ("other", "other"),
)
PARTS: dict[str, LaneKind] = {
    "wait for device": "waiting",
    "build": "build",
    "reference": "check",
    "load": "check",
    "check": "check",
    "sanitizer": "check",
    "timing": "time",
    "attribution": "time",
}
WHOLE: dict[str, LaneKind] = {
    "coder": "coder",
    "judge": "judge",
    "baseline": "baseline",
    "profile": "profile",
    "verify": "verify",
}
"""Stages that are drawn in one lane, but for the time that they waited for the device."""
LEAST_GAP_S = 1.0


def timeline(events: Sequence[StoredEvent], now: datetime | None) -> Timeline | None:
    """The lanes; None before anything has begun. `now` ends the stage that is under way; None: nothing is.

    Of a stage's parts only their lengths are known: they are laid one after another, from where the stage began.
    """
    if not events:
        return None
    zero = events[0].at
    spans: dict[LaneKind, list[Span]] = {kind: [] for kind, _ in LANES}
    gaps: list[Gap] = []
    open_stage: tuple[float, StageStarted] | None = None
    idle: tuple[float, str] | None = None
    at = 0.0
    for stored in events:
        at = (stored.at - zero).total_seconds()
        event = stored.event
        if idle and isinstance(event, RunStarted | RunResumed | StageStarted | RunQueued | RunFinished):
            _add_gap(gaps, idle, at)
            idle = None
        match event:
            case StageStarted():
                open_stage = (at, event)
            case StageFinished():
                began = max(0.0, at - event.seconds)
                open_stage = None
                for kind, made in _of_stage(event, began, at):
                    spans[kind].append(made)
            case RunQueued():
                idle = (at, "in the queue")
            case RunSuspended():
                idle, open_stage = (at, "waits for a reply or an evaluation"), None
            case RunFinished():
                idle, open_stage = (at, event.state.value), None
    end = at if now is None else max(at, (now - zero).total_seconds())
    if open_stage and now is not None:
        began, started = open_stage
        kind = WHOLE.get(started.stage, "other" if started.stage != "evaluate" else "build")
        title = f"{_title(started.stage, started.round)}, under way for {duration(end - began)}"
        spans[kind].append(Span(start_s=began, end_s=end, round=_round(started.round), title=title))
    if idle and now is not None:
        _add_gap(gaps, idle, end)
    lanes = [Lane(name=name, kind=kind, spans=tuple(spans[kind])) for kind, name in LANES if spans[kind]]
    return Timeline(total_s=end, lanes=tuple(lanes), gaps=tuple(gaps)) if lanes else None


def _add_gap(gaps: list[Gap], idle: tuple[float, str], end: float) -> None:
    began, why = idle
    if end - began >= LEAST_GAP_S:
        gaps.append(Gap(start_s=began, end_s=end, title=f"{why}, {duration(end - began)}"))


def _of_stage(event: StageFinished, began: float, end: float) -> Iterable[tuple[LaneKind, Span]]:
    """The spans of a finished stage."""
    whole = WHOLE.get(event.stage)
    at = began
    for part, seconds in event.parts_s.items():
        kind = PARTS.get(part, "other")
        if whole is not None and (kind != "waiting" or seconds < 0.05):
            continue  # of these only the wait is told apart, which comes first where it is long
        stop = min(at + seconds, end)
        name = "waiting for the device" if part == "wait for device" else part
        yield kind, _span(event, at, stop, name)
        at = stop
    if whole is not None:
        yield whole, _span(event, at, end, event.stage)
    elif not event.parts_s:
        yield "other", _span(event, began, end, event.stage)


def _span(event: StageFinished, began: float, end: float, name: str) -> Span:
    title = f"{_title(name, event.round)}, {duration(end - began)}"
    return Span(start_s=round(began, 4), end_s=round(end, 4), round=_round(event.round), title=title)


def _title(name: str, number: int) -> str:
    return f"{name}, round {number}" if number >= 0 else name


def _round(number: int) -> int | None:
    return number if number >= 0 else None
