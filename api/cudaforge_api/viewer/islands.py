"""The data that the elements in static/ draw; static/types.d.ts has the same types for the browser's side."""

from __future__ import annotations

from typing import Literal

from markupsafe import Markup
from pydantic import BaseModel

from cudaforge.shapes import Shape, to_json


def island(data: BaseModel) -> Markup:
    """The data as a script element that is never executed.

    The JSON is ASCII, so U+2028 and the like are escaped already; without <, > and & no text can end the element or
    begin anything in it.
    """
    text = to_json(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json">{text}</script>')


class CurveRound(Shape):
    n: int
    verdict: str | None
    speedup: float | None
    low: float | None
    high: float | None
    href: str
    title: str


class Best(Shape):
    n: int
    speedup: float


class Verified(Shape):
    n: int | None
    speedup: float
    low: float
    high: float


class Curve(Shape):
    """Speedup over eager by round."""

    rounds: tuple[CurveRound, ...]
    best: tuple[Best, ...]
    eager: float = 1.0
    compile: float | None
    light: float | None
    verified: Verified | None


LaneKind = Literal["coder", "judge", "baseline", "build", "check", "time", "profile", "waiting", "verify", "other"]


class Span(Shape):
    start_s: float
    end_s: float
    round: int | None
    title: str


class Lane(Shape):
    name: str
    kind: LaneKind
    spans: tuple[Span, ...]


class Gap(Shape):
    start_s: float
    end_s: float
    title: str


class Timeline(Shape):
    """Where the time of a run went; seconds since it began."""

    total_s: float
    lanes: tuple[Lane, ...]
    gaps: tuple[Gap, ...]


class DiffSide(Shape):
    title: str
    text: str


class Mark(Shape):
    side: Literal["left", "right"]
    line: int
    kind: Literal["error", "warning", "remark", "hot"]
    text: str
    share: float | None = None


class Diff(Shape):
    """One file against another."""

    left: DiffSide
    right: DiffSide
    language: Literal["cuda", "cpp", "python"]
    marks: tuple[Mark, ...]


class Place(Shape):
    index: tuple[int, ...]
    expected: float | None
    got: float | None


class OutputErrors(Shape):
    name: str
    shape: tuple[int, ...] | None
    mismatched: int
    total: int
    pattern: str
    places: tuple[Place, ...]


class Errors(Shape):
    """Where outputs differ."""

    outputs: tuple[OutputErrors, ...]


class Reason(Shape):
    name: str
    share: float
    parent: float | None


class Stalls(Shape):
    """What the warps did."""

    reasons: tuple[Reason, ...]
    note: str


class MemoryRoof(Shape):
    label: str
    bytes_per_s: float


class ComputeRoof(Shape):
    label: str
    ops_per_s: float


class Point(Shape):
    title: str
    intensity: float
    ops_per_s: float
    kind: Literal["this", "parent"]


class Roofline(Shape):
    """Achieved rate over arithmetic intensity."""

    memory: MemoryRoof
    compute: tuple[ComputeRoof, ...]
    points: tuple[Point, ...]
    unit: str = "FLOP"


class Bar(Shape):
    name: str
    percent: float
    parent: float | None


class Light(Shape):
    """Percent of the device's peak by unit."""

    bars: tuple[Bar, ...]


class Series(Shape):
    name: str
    kind: Literal["kernel", "eager", "compile"]
    samples: tuple[float, ...]
    median: float
    low: float
    high: float


class Noise(Shape):
    low: float
    high: float


class Strip(Shape):
    """Every raw sample."""

    unit: Literal["us"] = "us"
    series: tuple[Series, ...]
    noise: Noise | None
