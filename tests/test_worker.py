"""A queue worker: carries out, cancels, gives back, and survives what goes wrong in a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.small_evaluator import SmallEvaluator, small_kernel, small_task

from cudaforge import wiring
from cudaforge.errors import UsageError
from cudaforge.jobs import Answer, Bounds, JobState, SingleEvaluation, SingleState
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Budget, Run, RunFinished, RunSpec, RunState
from cudaforge.worker import QueueWorker

ANSWER = Answer(status=201, body="{}", location="/x")
REPLY = "Here.\n\n`model.py`:\n```python\nclass ModelNew:\n    pass  # fast\n```\n"


@pytest.fixture
def store(cudaforge_home: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(cudaforge_home)
    yield made
    made.close()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "recording"
    folder.mkdir()
    (folder / "recording.toml").write_text('title = "t"\nmade_by = "m"\nnote = "n"\nlanguage = "module"\n')
    (folder / "coder-00.md").write_text(REPLY)
    return folder


def run_of(store: SqliteStore, coder: str, notes: str = "", **spec: Any) -> str:
    """A submitted run of one round."""
    values = {
        "task": small_task(notes),
        "language": "module",
        "coder": coder,
        "judge": coder,
        "budget": Budget(rounds=1),
        **spec,
    }
    run = Run(id=wiring.new_id("r"), spec=RunSpec.model_validate(values), state=RunState.QUEUED)
    store.queue.submit(run, "local", Bounds(), ANSWER)
    return run.id


def single_of(store: SqliteStore, notes: str = "", text: str = "fast", metrics: str | None = None) -> str:
    single = SingleEvaluation(
        id=wiring.new_id("e"), task=small_task(notes), kernel=small_kernel(text), evaluator="small", metrics=metrics
    )
    store.queue.submit(single, "local", Bounds(), ANSWER)
    return single.id


class Hanging(SmallEvaluator):
    """Begins with everything and ends nothing."""

    async def _work(self, request: Any) -> None:
        assert self.log is not None
        with self.log.open("a") as log:
            log.write(f"{request.key}\n")
        await asyncio.sleep(3600)


@asynccontextmanager
async def working(home: Path, **options: Any) -> AsyncIterator[QueueWorker]:
    """A worker in this process, drained at the end."""
    evaluators: list[SmallEvaluator] = []

    def make(spec: str, _: Path) -> SmallEvaluator:
        if spec == "unknown":
            raise UsageError("Evaluator 'unknown' is unknown.")
        evaluators.append(SmallEvaluator())
        return evaluators[-1]

    worker = QueueWorker(home, poll_s=0.02, make_evaluator=make, **options)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain()
        await task
        assert all(evaluator.closed for evaluator in evaluators)


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def job_state(store: SqliteStore, job_id: str) -> JobState | None:
    job = store.queue.job(job_id)
    return job.state if job else None


def test_runs_and_single_evaluations_are_carried_out(store: SqliteStore, cudaforge_home: Path, recording: Path) -> None:
    async def go() -> None:
        runs = [run_of(store, f"recorded:{recording}") for _ in range(3)]
        good, bad = single_of(store, metrics="core"), single_of(store, text="broken")
        async with working(cudaforge_home) as worker:
            jobs = [*runs, good, bad]
            await until(lambda: all(job_state(store, job) is JobState.ENDED for job in jobs))
        assert worker.jobs == 5
        assert [run.state for run in store.runs()] == [RunState.DONE] * 3
        passed, failed = store.queue.single(good), store.queue.single(bad)
        assert passed is not None and passed.state is SingleState.DONE and passed.evaluation is not None
        assert passed.evaluation.passed and passed.profile is not None and passed.report is not None
        assert store.artifact(passed.report) == bytes(range(256))
        assert failed is not None and failed.evaluation is not None and failed.profile is None
        assert failed.evaluation.verdict == "BUILD_FAILED"

    asyncio.run(go())


def test_a_job_under_way_is_cancelled_and_the_worker_goes_on(
    store: SqliteStore, cudaforge_home: Path, recording: Path
) -> None:
    async def go() -> None:
        async with working(cudaforge_home):
            run, single = run_of(store, f"recorded:{recording}", "hang"), single_of(store, "hang")
            await until(lambda: job_state(store, run) is job_state(store, single) is JobState.RUNNING)
            await until(lambda: len(store.events(run)) >= 3)
            assert store.queue.cancel(run) and store.queue.cancel(single)
            await until(lambda: job_state(store, run) is job_state(store, single) is JobState.ENDED)
            last = store.events(run)[-1].event
            assert isinstance(last, RunFinished) and last.state is RunState.STOPPED
            found = store.queue.single(single)
            assert found is not None and found.state is SingleState.STOPPED
            after = single_of(store)
            await until(lambda: job_state(store, after) is JobState.ENDED)

    asyncio.run(go())


def test_a_drained_worker_gives_back_what_does_not_end_in_time(
    store: SqliteStore, cudaforge_home: Path, recording: Path
) -> None:
    async def go() -> None:
        run, single = run_of(store, f"recorded:{recording}"), single_of(store)
        log = cudaforge_home / "log"

        def begun() -> bool:
            return log.exists() and len(log.read_text().splitlines()) == 2

        hanging = QueueWorker(cudaforge_home, poll_s=0.02, drain_s=0.1, make_evaluator=lambda _, __: Hanging(log))
        task = asyncio.create_task(hanging.run())
        await until(begun)
        hanging.drain()
        await task
        assert job_state(store, run) is job_state(store, single) is JobState.QUEUED
        stored = store.run(run)
        assert stored is not None and stored.state is RunState.QUEUED
        async with working(cudaforge_home):
            await until(lambda: job_state(store, run) is job_state(store, single) is JobState.ENDED)
        stored, found = store.run(run), store.queue.single(single)
        assert stored is not None and stored.state is RunState.DONE
        assert found is not None and found.state is SingleState.DONE
        ends = [e.event for e in store.events(run) if isinstance(e.event, RunFinished)]
        assert [end.state for end in ends] == [RunState.DONE]

    asyncio.run(go())


def test_what_fails_is_told_with_its_job_and_the_worker_goes_on(
    store: SqliteStore, cudaforge_home: Path, recording: Path
) -> None:
    async def go() -> None:
        gone = run_of(store, f"recorded:{recording / 'gone'}")
        no_evaluator = run_of(store, f"recorded:{recording}", evaluator="unknown")
        broken, no_task = single_of(store, "error"), single_of(store, "no task")
        bug = single_of(store, "bug")
        async with working(cudaforge_home):
            jobs = (gone, no_evaluator, broken, no_task, bug)
            await until(lambda: all(job_state(store, job) is JobState.ENDED for job in jobs))
        for run_id in (gone, no_evaluator):
            run = store.run(run_id)
            assert run is not None and run.state is RunState.FAILED and run.error
            assert isinstance(store.events(run_id)[-1].event, RunFinished)
        states = [store.queue.single(job) for job in (broken, no_task, bug)]
        assert [single.state for single in states if single] == [SingleState.FAILED] * 3
        assert [single.error for single in states if single] == [
            "The abacus lacks a bead.",
            "The task divides by zero.",
            "ValueError: seven beads",
        ]

    asyncio.run(go())


def test_a_run_that_another_process_drives_is_left_to_it(
    store: SqliteStore, cudaforge_home: Path, recording: Path
) -> None:
    from cudaforge.graph import _sole_driver

    async def go() -> None:
        run = run_of(store, f"recorded:{recording}")
        with _sole_driver(cudaforge_home / "checkpoints.db", run):
            async with working(cudaforge_home):
                await until(lambda: job_state(store, run) is JobState.ENDED)
        stored = store.run(run)
        assert stored is not None and stored.state is RunState.QUEUED and not stored.error
        assert store.queue.requeue(stored, "local", Bounds(), "resumed")

    asyncio.run(go())


def test_a_person_answers_and_the_worker_goes_on(store: SqliteStore, cudaforge_home: Path) -> None:
    async def go() -> None:
        async with working(cudaforge_home, slots=1):
            run = run_of(store, "manual:")
            await until(lambda: job_state(store, run) is JobState.WAITING)
            other = single_of(store)  # the only slot is free meanwhile
            await until(lambda: job_state(store, other) is JobState.ENDED)
            store.queue.reply(run, REPLY)
            await until(lambda: job_state(store, run) is JobState.ENDED)
        stored = store.run(run)
        assert (
            stored is not None and stored.state is RunState.DONE and stored.outcome is not None and stored.outcome.win
        )

    asyncio.run(go())


def test_no_more_jobs_than_slots_are_under_way(store: SqliteStore, cudaforge_home: Path) -> None:
    async def go() -> None:
        for _ in range(5):
            single_of(store, "hang")
        async with working(cudaforge_home, slots=2, drain_s=0.0):
            await until(lambda: store.queue.counts()["running"] == 2)
            await asyncio.sleep(0.2)
            assert store.queue.counts() == {"queued": 3, "running": 2, "waiting": 0}
            assert [info.slots for info in store.queue.workers()] == [2]
        assert store.queue.counts() == {"queued": 5, "running": 0, "waiting": 0}
        assert store.queue.workers() == []

    asyncio.run(go())
