"""The list of runs, as a page shows it: from typed columns alone, so that five hundred runs cost no more than fifty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cudaforge.evaluation import Interval
from cudaforge.shapes import RunCounts, RunFilter, RunGlance, RunLine, RunSort
from cudaforge.trace import RunState
from cudaforge_api.viewer import charts

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

PAGE = 100
FROM_A_TO_Z: frozenset[str] = frozenset({"task", "model", "device", "state"})
"""What is sorted from A to Z when it is first asked for; numbers begin with the largest."""


class Asked(BaseModel):
    """The query of the page's URL. Empty fields of the form are no condition."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    text: Annotated[str, Field(max_length=100)] = ""
    state: RunState | Literal[""] = ""
    device: Annotated[str, Field(max_length=200)] = ""
    model: Annotated[str, Field(max_length=400)] = ""
    sort: Annotated[str, Field(pattern=rf"^-?({'|'.join(get_args(RunSort))})$")] = "-created"
    cursor: Annotated[int, Field(ge=0, le=10**6)] = 0
    """How many runs stand before the page."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """Out of a URL that anybody may have typed: what does not fit counts for nothing."""
        kept = {}
        for name in cls.model_fields.keys() & query.keys():
            try:
                cls.model_validate({name: query[name]})
            except ValidationError:
                continue
            kept[name] = query[name]
        return cls.model_validate(kept)

    @property
    def key(self) -> RunSort:
        """What the list is sorted by."""
        return cast(RunSort, self.sort.removeprefix("-"))

    @property
    def descending(self) -> bool:
        return self.sort.startswith("-")

    @property
    def filtered(self) -> bool:
        """Whether anything but the order was asked for."""
        return bool(self.text or self.state or self.device or self.model)

    def url(self, **changes: object) -> str:
        """This page with some fields changed, defaults left out."""
        plain = Asked().model_dump()
        values = {**self.model_dump(mode="json"), **changes}
        query = urlencode({name: value for name, value in values.items() if value != plain[name]})
        return f"/?{query}" if query else "/"

    def sorted_by(self, key: str) -> str:
        """URL of the list sorted by `key`; by what it is sorted already, the other way round."""
        first = key if key in FROM_A_TO_Z else f"-{key}"
        other = f"-{key}" if key in FROM_A_TO_Z else key
        return self.url(sort=other if self.sort == first else first, cursor=0)

    def aria_sort(self, key: str) -> str:
        """For the header of this column."""
        return ("descending" if self.descending else "ascending") if key == self.key else "none"


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    run: RunLine
    glance: RunGlance

    @property
    def screened(self) -> float | None:
        """The best screening so far, while nothing is verified."""
        best = charts.best_so_far(self.glance.points)
        return best[-1][1] if best and self.run.win is None else None

    @property
    def compared(self) -> Interval | None:
        """Verified, over torch.compile."""
        return self.glance.compile if self.run.win else None

    @property
    def outcome(self) -> str:
        """A word for the state that counts: a verdict once there is one."""
        if self.run.state is RunState.DONE:
            return "verified" if self.run.win else "no win"
        return "waiting" if self.run.state is RunState.SUSPENDED else self.run.state.value


@dataclass(frozen=True)
class RunsPage:
    """All of it."""

    asked: Asked
    rows: list[Row]
    scale: tuple[float, float]
    """Of the whiskers of a column, low and high."""
    counts: RunCounts
    devices: list[str]
    models: list[str]
    newer: str | None
    older: str | None
    last_event: int
    """What the page already shows."""

    @property
    def total(self) -> int:
        """Runs of the home, whatever was asked for."""
        return sum(self.counts.states.values())


def runs_page(record: SqliteStore, asked: Asked) -> RunsPage:
    """The list that was asked for."""
    last_event = record.newest_event()  # first: what comes while the rest is read is shown once more, never missed
    wanted = RunFilter(
        state=RunState(asked.state) if asked.state else None,
        device=asked.device or None,
        model=asked.model or None,
        text=asked.text.strip(),
    )
    lines = record.find_runs(wanted, limit=PAGE + 1, sort=asked.key, ascending=not asked.descending, skip=asked.cursor)
    more, lines = len(lines) > PAGE, lines[:PAGE]
    glances = record.glances([line.id for line in lines])
    rows = [Row(line, glances[line.id]) for line in lines if line.id in glances]
    return RunsPage(
        asked=asked,
        rows=rows,
        scale=charts.scale_of([i for row in rows for i in (row.run.speedup, row.compared)]),
        counts=record.run_counts(),
        devices=[device.name for device in record.devices()],
        models=record.models(),
        newer=asked.url(cursor=max(0, asked.cursor - PAGE)) if asked.cursor else None,
        older=asked.url(cursor=asked.cursor + PAGE) if more else None,
        last_event=last_event,
    )
