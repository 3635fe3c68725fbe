"""Reads an .ncu-rep: launches with their metrics and stalls, and the source lines where the warps waited.

ncu_report is NVIDIA's reader. It raises nothing: a damaged file is an empty context, an absent metric None.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cudaforge_profiling.demangle import short_name
from cudaforge_profiling.types import Frozen, HotLine, Launch, Metric

if TYPE_CHECKING:
    import pandas as pd


class ReportError(ValueError):
    """The file is not a report, or a report of nothing."""


class Report(Frozen):
    """What a report says."""

    launches: tuple[Launch, ...]
    hot_lines: tuple[HotLine, ...] = ()
    """Of the candidate's own launches together, largest share first."""
    notes: tuple[str, ...] = ()


_SAMPLED = re.compile(r"^smsp__pcsamp_warps_issue_stalled_(?P<reason>\w+)$")
_RATIO = re.compile(r"^smsp__average_warps_issue_stalled_(?P<reason>\w+)_per_issue_active\.ratio$")
_PERCENT = re.compile(r"^smsp__warp_issue_stalled_(?P<reason>\w+)_per_warp_active\.pct$")
_WARPS_PER_ISSUE = "smsp__average_warps_active_per_issue_active.ratio"
_DURATION = "gpu__time_duration.sum"
_TO_US = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3, "s": 1e6, "second": 1e6}
# What ncu adds to every report: facts of the device, its own bookkeeping, per-instruction tables.
_NOT_METRICS = ("device__attribute_", "profiler__", "nvlink__", "numa__", "group:", "smsp__pcsamp_", "launch__function")
FEW_SAMPLES = 200
"""Below so many samples a line's share says little."""


def read(
    path: Path | str,
    *,
    entry_functions: Collection[str] = (),
    metrics: Collection[str] | None = None,
    sources: Mapping[str, str] | None = None,
    top: int = 12,
) -> Report:
    """Reads a report.

    Args:
        entry_functions: mangled names of the kernels in the candidate's binary; a launch of another one is not its
            `own`. Empty where they are not known: all are.
        metrics: names to keep in each launch; None keeps all that were collected.
        sources: file name to text, e.g. `kernel.cu`, for the text of hot lines; what the report itself carries
            (`--import-source`) is used besides.
        top: at most so many hot lines.

    Raises:
        ReportError: missing, empty, damaged, or without a single launch.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ReportError(f"the profile report {path.name} cannot be read: {error.strerror}.") from None
    if size == 0:
        raise ReportError(f"the profile report {path.name} is empty: ncu was stopped before it could write it.")

    with warnings.catch_warnings():
        # Python 3.12 and later complain about types that SWIG generates.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ncu_report

    # The context owns all that comes from it, so it stays referenced until everything is copied out.
    context = ncu_report.load_report(str(path))
    actions = [action for stream in context or () for action in stream]
    if not actions:
        raise ReportError(f"{path.name} is not a profile report, or no kernel launch is in it.")
    launches = tuple(_launch(index, action, entry_functions, metrics) for index, action in enumerate(actions))
    own = [action for launch, action in zip(launches, actions, strict=True) if launch.own]
    notes = []
    if not own:
        notes.append("None of the profiled launches is a kernel of the candidate.")
    hot, hot_notes = hot_lines(own, sources or {}, top)
    return Report(launches=launches, hot_lines=hot, notes=(*notes, *hot_notes))


def _launch(index: int, action: Any, entry_functions: Collection[str], wanted: Collection[str] | None) -> Launch:
    names = [str(name) for name in action.metric_names()]
    mangled = str(action.name(action.NameBase_MANGLED) or "")
    demangled = str(action.name(action.NameBase_DEMANGLED) or action.name() or mangled)
    kept = {}
    for name in sorted(names):
        if name not in wanted if wanted is not None else name.startswith(_NOT_METRICS):
            continue
        metric = action.metric_by_name(name)
        value = metric.value() if metric is not None else None
        if value is not None:
            kept[name] = Metric(name=name, value=value, unit=str(metric.unit() or ""))
    return Launch(
        index=index,
        name=short_name(demangled),
        mangled=mangled,
        own=not entry_functions or mangled in entry_functions,
        grid=_dimensions(action, "grid"),
        block=_dimensions(action, "block"),
        duration_us=_duration_us(action),
        metrics=kept,
        stalls=_stalls(action, names),
    )


def _number(action: Any, name: str) -> float | None:
    metric = action.metric_by_name(name)
    return float(metric.as_double()) if metric is not None and metric.has_value() else None


def _dimensions(action: Any, which: str) -> tuple[int, int, int]:
    sides = [_number(action, f"launch__{which}_dim_{axis}") for axis in "xyz"]
    if sides[0] is not None and sides[1] is not None and sides[2] is not None:
        return int(sides[0]), int(sides[1]), int(sides[2])
    return int(_number(action, f"launch__{which}_size") or 1), 1, 1


def _duration_us(action: Any) -> float | None:
    metric = action.metric_by_name(_DURATION)
    factor = _TO_US.get(str(metric.unit())) if metric is not None and metric.has_value() else None
    return float(metric.as_double()) * factor if factor is not None else None


def _sampled(action: Any, names: Iterable[str]) -> dict[str, Any]:
    """Reason -> PC sampling metric. The `_not_issued` twins count a part of the same samples again."""
    found = {}
    for name in names:
        match = _SAMPLED.match(name)
        if match and not name.endswith("_not_issued"):
            found[match["reason"]] = action.metric_by_name(name)
    return {reason: metric for reason, metric in found.items() if metric is not None}


def _instances(metric: Any) -> list[tuple[int, int]]:
    """(instruction address, samples) for each sampled instruction."""
    if not metric.has_correlation_ids():
        return []
    addresses = metric.correlation_ids()
    return [(int(addresses.as_uint64(i)), int(metric.as_uint64(i))) for i in range(metric.num_instances())]


def _stalls(action: Any, names: Sequence[str]) -> dict[str, float]:
    """Share of the warps' time by reason, largest first; from samples where there are any, else from counters."""
    samples = {
        reason: sum(count for _, count in _instances(metric)) or int(metric.as_uint64())
        for reason, metric in _sampled(action, names).items()
    }
    total = sum(samples.values())
    if total:
        return _largest({reason: count / total for reason, count in samples.items()})
    for pattern, denominator in ((_PERCENT, 100.0), (_RATIO, _number(action, _WARPS_PER_ISSUE))):
        matches = [match for name in names if (match := pattern.match(name))]
        shares = {match["reason"]: _number(action, match.string) or 0.0 for match in matches}
        if shares and denominator:
            return _largest({reason: share / denominator for reason, share in shares.items()})
    return {}


def _largest(shares: Mapping[str, float], count: int | None = None, least: float = 0.001) -> dict[str, float]:
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return {name: round(share, 4) for name, share in ordered[:count] if share >= least}


def hot_lines(
    actions: Sequence[Any], sources: Mapping[str, str], top: int = 12
) -> tuple[tuple[HotLine, ...], tuple[str, ...]]:
    """The source lines with the largest share of the PC samples of these ncu_report actions, and notes.

    A line of an inlined helper stands for itself, not for its callers: all its uses are one line here.
    """
    lines: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    texts = {_file_name(name): text.splitlines() for name, text in sources.items()}
    nowhere = total = 0
    for action in actions:
        places: dict[int, tuple[str, int] | None] = {}
        for reason, metric in _sampled(action, [str(name) for name in action.metric_names()]).items():
            for address, count in _instances(metric):
                if not count:
                    continue
                if address not in places:
                    info = action.source_info(address)
                    known = info is not None and info.file_name() and info.line() > 0
                    places[address] = (str(info.file_name()), int(info.line())) if known else None
                place = places[address]
                total += count
                if place is None:
                    nowhere += count
                else:
                    lines[place][reason] += count
        for name, text in dict(action.source_files()).items():
            if text:
                texts.setdefault(_file_name(str(name)), str(text).splitlines())
    if not total:
        return (), ()
    if not lines:
        return (), ("The samples have no source lines: the kernel was not compiled with -lineinfo.",)
    ordered = sorted(lines.items(), key=lambda item: (-item[1].total(), item[0]))
    hot = tuple(
        HotLine(
            file=_file_name(file),
            line=line,
            share=round(reasons.total() / total, 4),
            text=_text(texts.get(_file_name(file), []), line),
            stalls=_largest({reason: count / reasons.total() for reason, count in reasons.items()}, 4, 0.01),
        )
        for (file, line), reasons in ordered[:top]
    )
    notes = []
    if total < FEW_SAMPLES:
        notes.append(f"Only {total} samples: the launch is too short for shares of lines to say much.")
    if nowhere / total >= 0.01:
        notes.append(f"{nowhere / total:.0%} of the samples belong to no source line.")
    return hot, tuple(notes)


def _file_name(path: str) -> str:
    return PurePosixPath(path).name


def _text(lines: Sequence[str], line: int) -> str:
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def to_frame(launches: Sequence[Launch]) -> pd.DataFrame:
    """One row a launch, in order: index, name, mangled, own, grid_x..z, block_x..z, duration_us, then every metric
    by its name and every stall share as `stall.REASON`.

    Whole numbers are Int64, other numbers Float64, text is string; what a launch lacks is NA. Units of the metrics
    stand in `frame.attrs["units"]`.
    """
    import pandas as pd

    sides = [(f"{which}_{axis}", which, at) for which in ("grid", "block") for at, axis in enumerate("xyz")]
    columns: dict[str, tuple[list[Any], str]] = {
        "index": ([launch.index for launch in launches], "Int64"),
        "name": ([launch.name for launch in launches], "string"),
        "mangled": ([launch.mangled for launch in launches], "string"),
        "own": ([launch.own for launch in launches], "boolean"),
        **{name: ([getattr(launch, which)[at] for launch in launches], "Int64") for name, which, at in sides},
        "duration_us": ([launch.duration_us for launch in launches], "Float64"),
    }
    units: dict[str, str] = {}
    for name in dict.fromkeys(name for launch in launches for name in launch.metrics):
        found = [launch.metrics.get(name) for launch in launches]
        values = [metric.value if metric is not None else None for metric in found]
        columns[name] = (values, _dtype(values))
        units[name] = next((metric.unit for metric in found if metric is not None), "")
    for reason in dict.fromkeys(reason for launch in launches for reason in launch.stalls):
        columns[f"stall.{reason}"] = ([launch.stalls.get(reason) for launch in launches], "Float64")
    frame = pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, (values, dtype) in columns.items()})
    frame.attrs["units"] = units
    return frame


def _dtype(values: Iterable[Any]) -> str:
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return "string"
    return "Int64" if all(isinstance(value, int) for value in known) else "Float64"
