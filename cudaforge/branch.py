"""A new run that begins as a copy of another's line of attempts: nothing is asked or measured again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cudaforge import wiring
from cudaforge.errors import StoreError
from cudaforge.evaluation import Baseline
from cudaforge.graph import started
from cudaforge.journal import Journal
from cudaforge.trace import (
    Attempt,
    AttemptFinished,
    BaselineMeasured,
    Call,
    Run,
    RunState,
    Usage,
)
from cudaforge_profiling.types import Profile

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore


def branch(store: SqliteStore, run: Run, head: Attempt) -> Run:
    """Stores a run like `run` whose rounds are the line from its first draft to `head`, numbered anew, and gives it.

    Evaluations, profiles and the baseline lie under the new run's keys. The models' calls of the line are copied with
    a price of 0, since they were paid for in the other run; a recording then goes on at the right place. Until all is
    there the new run is stored as failed, so that one which was cut off is told from one that is whole.
    """
    line = [head]
    while line[0].base is not None:
        line.insert(0, _stored(store, line[0].base))
    cut_off = {"state": RunState.FAILED, "error": "The branching was cut off.", "device": run.device}
    made = Run(id=wiring.new_id("r"), spec=run.spec, head="", branched_from=head.id, **cut_off)
    store.create_run(made)
    ids = {old.id: f"{made.id}.{number}" for number, old in enumerate(line)}
    journal = Journal(store, made.id)
    journal.emit(started(made))
    baseline = next(iter(store.results_of(run.id, Baseline).values()), None)
    if baseline is not None:
        store.save_result(made.id, f"{made.id}/baseline/0", baseline)
        journal.emit(
            BaselineMeasured(
                run_id=made.id,
                device=baseline.device.name,
                eager_us=baseline.eager_us,
                compile_us=baseline.compile_us,
                floor_us=baseline.floor_us,
            )
        )
    calls = store.calls(run.id)
    for number, old in enumerate(line):
        new = ids[old.id]
        for call in (c for c in calls if c.attempt_id == old.id):
            store.save_call(_call(call, made.id, new))
        changes: dict[str, Any] = {"id": new, "run_id": made.id, "round": number}
        changes["base"] = ids[old.base] if old.base else None
        for kind in ("evaluation", "profile"):
            if (key := getattr(old, kind)) is not None:
                changes[kind] = f"{new}/{'evaluate' if kind == 'evaluation' else kind}/0"
                _copy_result(store, key, made.id, changes[kind])
        attempt = old.model_copy(update=changes)
        store.save_attempt(attempt)
        journal.emit(
            AttemptFinished(
                run_id=made.id,
                attempt_id=new,
                round=number,
                action=attempt.action,
                verdict=attempt.verdict,
                reason=attempt.reason,
                time_us=attempt.time_us,
                speedup=attempt.speedup,
            )
        )
    journal.note(f"Branched from round {head.round} of run {run.id}: rounds 0 to {len(line) - 1} are its line.")
    return journal.save_run(state=RunState.STOPPED, error="", head=ids[head.id])


def _call(call: Call, run_id: str, attempt_id: str) -> Call:
    key = attempt_id + call.key.removeprefix(call.attempt_id)
    usage = Usage(usd=0.0)
    return call.model_copy(update={"key": key, "run_id": run_id, "attempt_id": attempt_id, "usage": usage})


def _copy_result(store: SqliteStore, key: str, run_id: str, under: str) -> None:
    result = store.result(key)
    if result is None:
        raise StoreError(f"{key} is not in the store.")
    if isinstance(result, Profile):
        report = store.report(key)
        result = result.model_copy(update={"report": report.data if report else None})
    store.save_result(run_id, under, result)


def _stored(store: SqliteStore, attempt_id: str) -> Attempt:
    attempt = store.attempt(attempt_id)
    if attempt is None:
        raise StoreError(f"Attempt {attempt_id} is not in the store.")
    return attempt
