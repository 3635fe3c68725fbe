"""What lists and summaries need, answered from the typed columns alone: no body is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, and_, case, false, func, or_, select, tuple_

from cudaforge.evaluation import Interval
from cudaforge.shapes import (
    DeviceLine,
    EvaluationLine,
    RoundPoint,
    RunCounts,
    RunFilter,
    RunGlance,
    RunLine,
    RunSort,
    Spent,
    Summary,
    TaskLine,
)
from cudaforge.store.codec import moment, plain
from cudaforge.store.models import ATTEMPTS, CALLS, EVENTS, JOBS, RESULTS, RUNS, SINGLES, TASKS
from cudaforge.trace import CallState, RunState


def find_runs(
    connection: Connection,
    wanted: RunFilter,
    before: str | None,
    limit: int,
    sort: RunSort = "created",
    ascending: bool = False,
    skip: int = 0,
) -> list[RunLine]:
    """See SqliteStore.find_runs."""
    attempts = select(func.count()).where(ATTEMPTS.c.run_id == RUNS.c.id).scalar_subquery().label("attempts")
    submitter = select(JOBS.c.submitter).where(JOBS.c.id == RUNS.c.id).scalar_subquery()
    query = (
        select(*(column for column in RUNS.c if column.name != "body"), attempts, submitter.label("submitter"))
        .limit(limit)
        .offset(skip)
    )
    if sort != "created":
        by = _sorted_by(sort, attempts)
        query = query.order_by((by.asc() if ascending else by.desc()).nulls_last())
    newest = sort != "created" or not ascending  # also where the rest is equal
    query = query.order_by(*(c.desc() if newest else c.asc() for c in (RUNS.c.created, RUNS.c.id)))
    if wanted.state is not None:
        query = query.where(RUNS.c.state == wanted.state.value)
    if wanted.task is not None:
        is_id = re.fullmatch(r"t[0-9a-f]{16}", wanted.task)
        query = query.where((RUNS.c.task if is_id else RUNS.c.task_name) == plain(wanted.task))
    if wanted.language is not None:
        query = query.where(RUNS.c.language == plain(wanted.language))
    if wanted.model is not None:
        query = query.where(or_(RUNS.c.coder == plain(wanted.model), RUNS.c.judge == plain(wanted.model)))
    if wanted.device is not None:
        query = query.where(RUNS.c.device == plain(wanted.device))
    if wanted.submitter is not None:
        query = query.where(submitter == plain(wanted.submitter))
    if wanted.text:
        columns = (RUNS.c.id, RUNS.c.task_name, RUNS.c.coder, RUNS.c.judge)
        query = query.where(or_(*(column.icontains(plain(wanted.text), autoescape=True) for column in columns)))
    if before is not None:
        query = query.where(_after(connection, RUNS, before))
    rows = connection.execute(query).mappings().all()
    spent = spent_by_run(connection, [row["id"] for row in rows])
    return [_line(row, spent[row["id"]]) for row in rows]


def _sorted_by(sort: RunSort, attempts: Any) -> Any:
    """What a list is ordered by."""
    usd = select(func.total(CALLS.c.usd)).where(CALLS.c.run_id == RUNS.c.id).scalar_subquery()
    finished = (EVENTS.c.run_id == RUNS.c.id) & (EVENTS.c.type == "stage_finished")
    seconds = select(func.total(EVENTS.c.seconds)).where(finished).scalar_subquery()
    columns = {
        "task": RUNS.c.task_name,
        "model": RUNS.c.coder,
        "device": RUNS.c.device,
        "state": RUNS.c.state,
        "rounds": attempts,
        "speedup": case((RUNS.c.win, RUNS.c.speedup)),  # of a run without a win the list shows none
        "compile": case((RUNS.c.win, RUNS.c.speedup_compile)),
        "cost": usd,
        "time": seconds,
    }
    return columns[sort]


def glances(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunGlance]:
    """What a list draws of each of these runs. Of a run's body only the budget and the verified interval are read.

    Not by SQLite's JSON functions: for them a body that holds an infinity is malformed, and one such run would be an
    error of the whole list.
    """
    bodies = connection.execute(select(RUNS.c.id, RUNS.c.body, RUNS.c.win).where(RUNS.c.id.in_(run_ids)))
    heads = [(run_id, json.loads(body), win) for run_id, body, win in bodies]
    points: dict[str, list[RoundPoint]] = {run_id: [] for run_id in run_ids}
    query = select(ATTEMPTS.c.run_id, ATTEMPTS.c.round, ATTEMPTS.c.verdict, ATTEMPTS.c.speedup)
    for row in connection.execute(query.where(ATTEMPTS.c.run_id.in_(run_ids)).order_by(ATTEMPTS.c.round)):
        points[row.run_id].append(RoundPoint(round=row.round, verdict=row.verdict, speedup=row.speedup))
    worked = (
        select(EVENTS.c.run_id, func.total(EVENTS.c.seconds).label("seconds"))
        .where(EVENTS.c.run_id.in_(run_ids), EVENTS.c.type == "stage_finished")
        .group_by(EVENTS.c.run_id)
    )
    seconds = {row.run_id: row.seconds for row in connection.execute(worked)}
    return {
        run_id: RunGlance(
            budget_rounds=body["spec"]["budget"]["rounds"],
            points=tuple(points[run_id]),
            compile=_verified_over_compile(body) if win else None,
            seconds=seconds.get(run_id, 0.0),
        )
        for run_id, body, win in heads
    }


def _verified_over_compile(body: dict[str, Any]) -> Interval | None:
    speedup = (body.get("outcome") or {}).get("speedup") or {}
    return Interval.model_validate(speedup["compile"]) if speedup.get("compile") else None


def counts(connection: Connection, today: str) -> RunCounts:
    """Runs by state, and what was spent since `today`."""
    states = connection.execute(select(RUNS.c.state, func.count()).group_by(RUNS.c.state))
    charged = CALLS.c.state.in_([CallState.DONE.value, CallState.UNCERTAIN.value])
    unpriced = func.sum(case((and_(charged, CALLS.c.usd.is_(None)), 1), else_=0))
    spent = connection.execute(select(func.total(CALLS.c.usd), unpriced).where(CALLS.c.started >= today)).one()
    return RunCounts(
        states={RunState(state): number for state, number in states}, usd_today=spent[0], unpriced_today=spent[1] or 0
    )


def models(connection: Connection) -> list[str]:
    """Every Coder and Judge that a run has named, sorted."""
    query = select(RUNS.c.coder).union(select(RUNS.c.judge))
    return sorted(connection.execute(query).scalars())


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


def find_tasks(connection: Connection, name: str | None, before: str | None, limit: int) -> list[TaskLine]:
    """Tasks that were submitted to a service, newest first."""
    query = select(TASKS.c.id, TASKS.c.name, TASKS.c.submitter, TASKS.c.created)
    query = query.order_by(TASKS.c.created.desc(), TASKS.c.id.desc()).limit(limit)
    if name is not None:
        query = query.where(TASKS.c.name == plain(name))
    if before is not None:
        query = query.where(_after(connection, TASKS, before))
    rows = connection.execute(query).mappings().all()
    return [TaskLine.model_validate({**row, "created": moment(row["created"])}) for row in rows]


def find_singles(connection: Connection, state: str | None, before: str | None, limit: int) -> list[EvaluationLine]:
    """Single evaluations, newest first."""
    query = select(*(column for column in SINGLES.c if column.name != "body"))
    query = query.order_by(SINGLES.c.created.desc(), SINGLES.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(SINGLES.c.state == state)
    if before is not None:
        query = query.where(_after(connection, SINGLES, before))
    rows = connection.execute(query).mappings().all()
    return [
        EvaluationLine.model_validate({**row, "created": moment(row["created"]), "updated": moment(row["updated"])})
        for row in rows
    ]


def devices(connection: Connection) -> list[DeviceLine]:
    """Devices on which anything was measured, the most used first."""
    query = select(RESULTS.c.device, func.count().label("results"), func.max(RESULTS.c.created).label("last"))
    rows = connection.execute(query.group_by(RESULTS.c.device).order_by(func.count().desc()))
    return [DeviceLine(name=row.device, results=row.results, last_used=moment(row.last)) for row in rows]


def _after(connection: Connection, table: Table, before: str) -> Any:
    """Rows that follow the one with the id `before` in a list from the newest to the oldest; none if it is unknown."""
    cursor = connection.execute(select(table.c.created, table.c.id).where(table.c.id == before)).one_or_none()
    if cursor is None:
        return false()
    return tuple_(table.c.created, table.c.id) < tuple_(cursor.created, cursor.id)
