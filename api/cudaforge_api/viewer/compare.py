"""Two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cudaforge.kernel import Kernel
from cudaforge_api.viewer import charts
from cudaforge_api.viewer.rounds import FileDiff, file_diff
from cudaforge_api.viewer.run import RunPage, run_page

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

CHOICES = 200
"""Runs that are offered, the newest; any other is named in the URL."""


def compare_page(record: SqliteStore, a: str, b: str) -> dict[str, Any]:
    """What the page is made of. Runs that are not there are said to be so, in the page."""
    found: list[RunPage | None] = []
    missing = []
    for run_id in (a, b):
        run = record.run(run_id) if run_id else None
        found.append(run_page(record, run) if run else None)
        if run_id and not run:
            missing.append(run_id)
    left, right = found
    diffs: list[FileDiff] = []
    why = ""
    if left and right:
        kernels = [_best(record, left), _best(record, right)]
        diffs, why = _diffs(kernels[0], kernels[1], left.run.id, right.run.id)
    intervals = [i for side in found if side for i in (side.headline.eager, side.headline.compile)]
    return {
        "a": left,
        "b": right,
        "choices": record.find_runs(limit=CHOICES),
        "problem": f"There is no run {' and no run '.join(missing)}." if missing else "",
        "scale": charts.scale_of(intervals),
        "diffs": diffs,
        "why_no_diff": why,
    }


def _best(record: SqliteStore, page: RunPage) -> Kernel | None:
    """The kernel that a run keeps so far."""
    chosen = next((r.attempt.kernel for r in page.rounds if r.best), None)
    return record.kernel(chosen) if chosen else None


def _diffs(left: Kernel | None, right: Kernel | None, a: str, b: str) -> tuple[list[FileDiff], str]:
    if left is None or right is None:
        return [], f"{a if left is None else b} has no kernel that passed"
    if left.language is not right.language:
        return [], f"one is written in {left.language.value}, the other in {right.language.value}"
    names = [name for name in right.language.file_names if name in right.files]
    return [file_diff(name, right, left, f"{a} {name}", f"{b} {name}", []) for name in names], ""
