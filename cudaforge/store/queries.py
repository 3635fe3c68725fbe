"""What lists and summaries need, answered from the typed columns alone: no body is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, case, func, select, tuple_

from cudaforge.evaluation import Interval
from cudaforge.store.codec import moment, plain
from cudaforge.store.models import ATTEMPTS, CALLS, EVENTS, RUNS
from cudaforge.trace import CallState, RunState
from cudaforge_profiling.types import Frozen


class Spent(Frozen):
    """What the model calls of a run have cost so far."""

    calls: int = 0
    uncertain_calls: int = 0
    """Cut off in flight and booked at their worst; their tokens and price are in the sums."""
    unpriced_calls: int = 0
    """Done or uncertain, at a price that is not known."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd_known: float = 0.0
    """Sum over the calls whose price is known."""

    @property
    def tokens(self) -> int:
        """Input and output; cached ones are among the input."""
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> float | None:
        """US dollars, or None where a call's price is not known."""
        return None if self.unpriced_calls else self.usd_known


class Summary(Frozen):
    """Totals of one run."""

    run_id: str
    spent: Spent
    stages_s: dict[str, float]
    """Wall seconds per finished stage: baseline, coder, judge, evaluate, profile, verify."""
    attempts: int
    events: int


class RunLine(Frozen):
    """A run as a list shows it; `SqliteStore.run` has the whole."""

    id: str
    state: RunState
    created: datetime
    updated: datetime
    task: str
    """Task id."""
    task_name: str
    language: str
    coder: str
    judge: str
    evaluator: str
    preset: str
    device: str | None
    waiting_for: str
    error: str
    win: bool | None
    """None while the run has no outcome."""
    best: str | None
    kernel: str | None
    speedup: Interval | None
    """Verified, over eager."""
    speedup_compile: float | None
    attempts: int
    spent: Spent


def find_runs(
    connection: Connection, state: RunState | None, task: str | None, before: str | None, limit: int
) -> list[RunLine]:
    """Newest first; see SqliteStore.find_runs."""
    attempts = select(func.count()).where(ATTEMPTS.c.run_id == RUNS.c.id).scalar_subquery().label("attempts")
    query = (
        select(*(column for column in RUNS.c if column.name != "body"), attempts)
        .order_by(RUNS.c.created.desc(), RUNS.c.id.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(RUNS.c.state == state.value)
    if task is not None:
        is_id = re.fullmatch(r"t[0-9a-f]{16}", task)
        query = query.where((RUNS.c.task if is_id else RUNS.c.task_name) == plain(task))
    if before is not None:
        cursor = connection.execute(select(RUNS.c.created, RUNS.c.id).where(RUNS.c.id == before)).one_or_none()
        if cursor is None:
            return []
        query = query.where(tuple_(RUNS.c.created, RUNS.c.id) < tuple_(cursor.created, cursor.id))
    rows = connection.execute(query).mappings().all()
    spent = spent_by_run(connection, [row["id"] for row in rows])
    return [_line(row, spent[row["id"]]) for row in rows]


def summary(connection: Connection, run_id: str) -> Summary | None:
    """Totals of a run; None where there is none of this id."""
    if connection.execute(select(RUNS.c.id).where(RUNS.c.id == run_id)).one_or_none() is None:
        return None
    stages = (
        select(EVENTS.c.stage, func.sum(EVENTS.c.seconds).label("seconds"))
        .where(EVENTS.c.run_id == run_id, EVENTS.c.type == "stage_finished")
        .group_by(EVENTS.c.stage)
        .order_by(func.min(EVENTS.c.id))
    )
    count = select(func.count())
    return Summary(
        run_id=run_id,
        spent=spent_by_run(connection, [run_id])[run_id],
        stages_s={row.stage: row.seconds for row in connection.execute(stages)},
        attempts=connection.execute(count.where(ATTEMPTS.c.run_id == run_id)).scalar_one(),
        events=connection.execute(count.where(EVENTS.c.run_id == run_id)).scalar_one(),
    )


def spent_by_run(connection: Connection, run_ids: Sequence[str]) -> dict[str, Spent]:
    """For each of the runs, those without calls included."""
    charged = CALLS.c.state.in_([CallState.DONE.value, CallState.UNCERTAIN.value])
    query = (
        select(
            CALLS.c.run_id,
            func.count().label("calls"),
            func.sum(case((CALLS.c.state == CallState.UNCERTAIN.value, 1), else_=0)).label("uncertain_calls"),
            func.sum(case((and_(charged, CALLS.c.usd.is_(None)), 1), else_=0)).label("unpriced_calls"),
            func.sum(CALLS.c.input_tokens).label("input_tokens"),
            func.sum(CALLS.c.output_tokens).label("output_tokens"),
            func.sum(CALLS.c.cached_tokens).label("cached_tokens"),
            func.total(CALLS.c.usd).label("usd_known"),
        )
        .where(CALLS.c.run_id.in_(run_ids))
        .group_by(CALLS.c.run_id)
    )
    found = {row["run_id"]: _spent(row) for row in connection.execute(query).mappings()}
    return {run_id: found.get(run_id, Spent()) for run_id in run_ids}


def _spent(row: RowMapping) -> Spent:
    return Spent.model_validate({name: row[name] for name in Spent.model_fields})


def _line(row: RowMapping, spent: Spent) -> RunLine:
    values = {name: row[name] for name in RunLine.model_fields if name not in ("speedup", "spent")}
    interval = None
    if row["speedup"] is not None:
        interval = Interval(value=row["speedup"], low=row["speedup_low"], high=row["speedup_high"])
    times = {"created": moment(row["created"]), "updated": moment(row["updated"])}
    return RunLine.model_validate({**values, **times, "speedup": interval, "spent": spent})
