"""The queue: fair, bounded, once, and nothing lost when workers die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import records

from cudaforge.errors import ConflictError, KeyReuseError, LimitError
from cudaforge.jobs import (
    MAX_DELIVERIES,
    Answer,
    Bounds,
    JobState,
    Once,
    SingleEvaluation,
    SingleState,
    WorkerInfo,
)
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import CallState, Run, RunFinished, RunQueued, RunState, now

BOUNDS = Bounds(queued=100, active=50)
ANSWER = Answer(status=201, body="{}", location="/x")


@pytest.fixture
def store(cudaforge_home: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(cudaforge_home)
    yield made
    made.close()


def worker(name: str = "w0") -> WorkerInfo:
    return WorkerInfo(id=name, pid=os.getpid(), slots=4, started=now(), seen=now())


def submit(store: SqliteStore, number: int, submitter: str = "local", bounds: Bounds = BOUNDS) -> str:
    run = records.run(f"r{number:010d}", state=RunState.QUEUED)
    store.queue.submit(run, submitter, bounds, ANSWER)
    return run.id


def single(number: int = 0) -> SingleEvaluation:
    return SingleEvaluation(
        id=f"e{number:010d}", task=records.task(), kernel=records.kernel("int x;"), evaluator="local:cpu"
    )


def standing(store: SqliteStore, run_id: str) -> Run:
    run = store.run(run_id)
    assert run is not None
    return run


def test_a_submitted_run_is_stored_queued_and_told(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    assert standing(store, run_id).state is RunState.QUEUED
    job = store.queue.job(run_id)
    assert job is not None and (job.kind, job.state, job.submitter) == ("run", JobState.QUEUED, "local")
    assert [stored.event for stored in store.events(run_id)] == [RunQueued(run_id=run_id, reason="submitted")]
    assert store.find_runs()[0].submitter == "local"


def test_claims_are_fair_between_submitters_and_in_order_within_one(store: SqliteStore) -> None:
    greedy = [submit(store, number, "greedy") for number in range(6)]
    modest = [submit(store, 10 + number, "modest") for number in range(2)]
    claimed = [job.id for _ in range(8) if (job := store.queue.claim("w"))]
    assert claimed == [greedy[0], modest[0], greedy[1], modest[1], *greedy[2:]]
    assert store.queue.claim("w") is None


def test_whoever_has_fewer_at_work_is_served_first_then_who_waited_longest(store: SqliteStore) -> None:
    for number, submitter in enumerate(("a", "b", "a", "b", "c")):
        submit(store, number, submitter)
    order = []
    for _ in range(5):  # one at a time: nobody is at work when the next is chosen
        job = store.queue.claim("w")
        assert job is not None
        order.append(job.submitter)
        store.save_run(standing(store, job.id).model_copy(update={"state": RunState.DONE}))
        store.queue.leave(job.id, "w")
    assert order == ["a", "b", "c", "a", "b"]


def test_two_claims_at_the_same_time_never_get_the_same_job(store: SqliteStore) -> None:
    wanted = {submit(store, number) for number in range(40)}
    got: list[str] = []

    def take(name: str) -> None:
        while job := store.queue.claim(name):
            got.append(job.id)

    threads = [threading.Thread(target=take, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40 and set(got) == wanted


def test_the_queue_and_each_submitter_are_bounded(store: SqliteStore) -> None:
    bounds = Bounds(queued=3, active=2)
    submit(store, 0, "a", bounds)
    submit(store, 1, "a", bounds)
    with pytest.raises(LimitError, match="2 runs and evaluations under way"):
        submit(store, 2, "a", bounds)
    assert store.run("r0000000002") is None  # refused as a whole
    submit(store, 3, "b", bounds)
    with pytest.raises(LimitError, match="queue is full"):
        submit(store, 4, "c", bounds)
    store.queue.cancel("r0000000000")
    submit(store, 5, "c", bounds)


def test_a_repeated_request_gets_its_first_answer_and_another_one_under_its_key_is_refused(store: SqliteStore) -> None:
    once = Once(submitter="a", key="k", fingerprint="f")
    first = store.queue.submit(records.run("r0000000001"), "a", BOUNDS, ANSWER, once)
    other = Answer(status=201, body='{"other": 1}', location="/y")
    again = store.queue.submit(records.run("r0000000002"), "a", BOUNDS, other, once)
    assert not first.replayed and again == ANSWER.model_copy(update={"replayed": True})
    assert store.run("r0000000002") is None
    with pytest.raises(KeyReuseError, match="Idempotency-Key"):
        store.queue.submit(
            records.run("r0000000003"), "a", BOUNDS, other, once.model_copy(update={"fingerprint": "another"})
        )
    by_other = once.model_copy(update={"submitter": "b"})
    assert not store.queue.submit(records.run("r0000000004"), "b", BOUNDS, other, by_other).replayed


@pytest.mark.parametrize("state", [RunState.DONE, RunState.STOPPED, RunState.FAILED])
def test_a_job_ends_with_its_run(store: SqliteStore, state: RunState) -> None:
    run_id = submit(store, 1)
    store.queue.claim("w")
    store.save_run(standing(store, run_id).model_copy(update={"state": state}))
    store.queue.leave(run_id, "w")
    job = store.queue.job(run_id)
    assert job is not None and job.state is JobState.ENDED
    assert not store.queue.cancel(run_id)


def waiting(store: SqliteStore, number: int = 1) -> str:
    """A run whose worker has left it at a prompt."""
    run_id = submit(store, number)
    store.queue.claim("w")
    call = records.call(f"{run_id}.0/coder/0", run_id=run_id, state=CallState.WAITING)
    store.save_call(call)
    store.save_run(standing(store, run_id).model_copy(update={"state": RunState.SUSPENDED, "waiting_for": call.key}))
    return run_id


def test_a_run_that_waits_for_a_reply_goes_on_when_it_comes(store: SqliteStore) -> None:
    run_id = waiting(store)
    store.queue.leave(run_id, "w")
    assert store.queue.counts() == {"queued": 0, "running": 0, "waiting": 1}
    assert store.queue.claim("w") is None
    call = store.queue.reply(run_id, "Here it is.")
    assert call.reply == "Here it is." and store.call(call.key) == call
    job = store.queue.claim("w")
    assert job is not None and job.id == run_id
    with pytest.raises(ConflictError):
        store.queue.reply(run_id, "Another.")


def test_a_reply_that_comes_before_its_worker_has_left_is_not_lost(store: SqliteStore) -> None:
    run_id = waiting(store)
    store.queue.reply(run_id, "Quick.")
    store.queue.leave(run_id, "w")
    job = store.queue.claim("w")
    assert job is not None and job.id == run_id


def test_a_reply_to_another_prompt_than_the_one_that_was_read_is_refused(store: SqliteStore) -> None:
    run_id = waiting(store)
    with pytest.raises(ConflictError, match="not to r0000000001"):
        store.queue.reply(run_id, "Late.", f"{run_id}.9/judge/0")
    with pytest.raises(ConflictError, match="waits for no reply"):
        store.queue.reply("r0000000099", "Lost.")


def test_what_no_worker_has_is_cancelled_at_once(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    store.queue.submit(single(), "local", BOUNDS, ANSWER)
    assert store.queue.cancel(run_id) and store.queue.cancel("e0000000000")
    assert standing(store, run_id).state is RunState.STOPPED
    found = store.queue.single("e0000000000")
    assert found is not None and found.state is SingleState.STOPPED
    assert isinstance(store.events(run_id)[-1].event, RunFinished)
    assert store.queue.claim("w") is None and not store.queue.cancel("r0000000099")


def test_a_worker_is_told_of_what_is_to_be_cancelled(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    store.queue.claim("w")
    assert store.queue.cancelled("w") == set()
    assert store.queue.cancel(run_id)
    with pytest.raises(ConflictError, match="being stopped"):
        store.queue.requeue(standing(store, run_id), "local", BOUNDS, "resumed")
    assert store.queue.cancelled("w") == {run_id} and store.queue.cancelled("other") == set()


def test_a_wish_to_cancel_that_comes_as_the_run_suspends_is_met(store: SqliteStore) -> None:
    run_id = waiting(store)
    store.queue.cancel(run_id)
    store.queue.leave(run_id, "w")
    assert standing(store, run_id).state is RunState.STOPPED


def test_jobs_of_live_workers_are_left_alone_and_those_of_the_dead_are_taken_over(
    store: SqliteStore, cudaforge_home: Path
) -> None:
    mine, theirs = submit(store, 1), submit(store, 2)
    with store.queue.work(worker("alive")):
        claimed = store.queue.claim("alive")
        assert claimed is not None and claimed.id == mine
        other = dying_worker(cudaforge_home)
        assert {info.id for info in store.queue.workers()} == {"alive", "dying"}
        assert store.queue.release() == []
        assert [job.worker for job in (store.queue.job(mine), store.queue.job(theirs)) if job] == ["alive", "dying"]
        other.kill()
        other.communicate()
        assert [info.id for info in store.queue.workers()] == ["alive"]
        assert store.queue.release() == []
        left, freed = store.queue.job(mine), store.queue.job(theirs)
        assert left is not None and left.state is JobState.RUNNING
        assert freed is not None and freed.state is JobState.QUEUED
        again = store.queue.claim("alive")
        assert again is not None and (again.id, again.deliveries) == (theirs, 2)
    assert store.queue.workers() == []


def test_a_job_whose_workers_die_again_and_again_is_given_up(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    for _ in range(MAX_DELIVERIES - 1):
        assert store.queue.claim("gone") is not None
        assert store.queue.release() == []
    assert store.queue.claim("gone") is not None
    assert store.queue.release() == [run_id]
    run = standing(store, run_id)
    assert run.state is RunState.FAILED and "died 5 times" in run.error
    assert store.queue.requeue(run, "local", BOUNDS, "resumed")  # and can be tried again
    assert standing(store, run_id).state is RunState.QUEUED and standing(store, run_id).error == ""


def test_a_job_that_its_live_worker_lost_hold_of_goes_back_into_the_queue(store: SqliteStore) -> None:
    kept, lost = submit(store, 1), submit(store, 2)
    assert store.queue.claim("w") and store.queue.claim("w")
    store.queue.recover("w", {kept})
    states = [job.state for job in (store.queue.job(kept), store.queue.job(lost)) if job]
    assert states == [JobState.RUNNING, JobState.QUEUED]


def test_a_cancelled_evaluation_that_its_worker_gives_back_is_stopped(store: SqliteStore) -> None:
    store.queue.submit(single(), "local", BOUNDS, ANSWER)
    assert store.task(single().task.id) == single().task and store.kernel(single().kernel.id) == single().kernel
    store.queue.claim("w")
    store.queue.cancel("e0000000000")
    store.queue.save_single(single())  # queued, as a drained worker leaves it
    store.queue.leave("e0000000000", "w")
    found, job = store.queue.single("e0000000000"), store.queue.job("e0000000000")
    assert found is not None and found.state is SingleState.STOPPED
    assert job is not None and job.state is JobState.ENDED


def test_a_run_that_ended_just_before_its_worker_died_stays_ended(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    store.queue.claim("gone")
    store.save_run(standing(store, run_id).model_copy(update={"state": RunState.DONE}))
    store.queue.release()
    assert standing(store, run_id).state is RunState.DONE and store.queue.claim("w") is None
    end = store.last_event(run_id)  # the worker died before it could say so
    assert end is not None and isinstance(end.event, RunFinished) and end.event.state is RunState.DONE


def test_what_is_queued_or_at_work_is_not_queued_twice(store: SqliteStore) -> None:
    run_id = submit(store, 1)
    assert not store.queue.requeue(standing(store, run_id), "local", BOUNDS, "resumed")
    store.queue.claim("w")
    assert not store.queue.requeue(standing(store, run_id), "local", BOUNDS, "resumed")


def dying_worker(home: Path) -> subprocess.Popen[str]:
    """Another process that has claimed a job and holds it."""
    code = (
        "import sys, os, time\nfrom pathlib import Path\nfrom cudaforge.store.sqlite import SqliteStore\n"
        "from cudaforge.jobs import WorkerInfo\nfrom cudaforge.trace import now\n"
        "store = SqliteStore(Path(sys.argv[1]))\n"
        "info = WorkerInfo(id='dying', pid=os.getpid(), slots=1, started=now(), seen=now())\n"
        "with store.queue.work(info):\n    assert store.queue.claim('dying')\n"
        "    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process
