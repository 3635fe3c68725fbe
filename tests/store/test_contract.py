"""What every Store does, whatever it is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import records
from support.memory_store import MemoryStore

from cudaforge.errors import StoreError
from cudaforge.evaluation import Result
from cudaforge.ports import Store
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import AttemptFinished, CallState, Event, Note, RunStarted, RunState, StageFinished, Usage

RUN = "r000000001"


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = SqliteStore(tmp_path / "home") if request.param == "sqlite" else MemoryStore()
    yield made
    made.close()


@pytest.fixture
def begun(store: Store) -> Store:
    """A store that has the run RUN."""
    store.create_run(records.run(RUN))
    return store


def test_what_is_not_there_is_none_or_empty(store: Store) -> None:
    singles = (store.run, store.attempt, store.kernel, store.call, store.result, store.artifact)
    assert [find("nothing") for find in singles] == [None] * len(singles)
    assert store.artifact("0" * 64) is None
    assert (store.runs(), store.attempts("no"), store.calls("no"), store.events("no"), store.events()) == (
        [],
        [],
        [],
        [],
        [],
    )


def test_a_run_comes_back_equal_and_can_be_changed(begun: Store) -> None:
    assert begun.run(RUN) == records.run(RUN)
    done = records.run(RUN, state=RunState.DONE, outcome=records.outcome(RUN), error=records.AWKWARD)
    begun.save_run(done)
    assert begun.run(RUN) == done
    assert begun.runs() == [done]


def test_a_run_is_created_once_and_saved_only_then(begun: Store) -> None:
    with pytest.raises(StoreError, match="already a run"):
        begun.create_run(records.run(RUN, state=RunState.FAILED))
    assert begun.run(RUN) == records.run(RUN)
    with pytest.raises(StoreError, match="no run r2"):
        begun.save_run(records.run("r2"))


def test_runs_come_newest_first_whatever_the_order_of_saving(store: Store) -> None:
    for minute in (3, 1, 2):
        store.create_run(records.run(f"r{minute}", minute=minute))
    store.save_run(records.run("r1", minute=1, state=RunState.DONE))
    assert [run.id for run in store.runs()] == ["r3", "r2", "r1"]
    assert [run.id for run in store.runs(limit=2)] == ["r3", "r2"]


def test_attempts_come_in_order_of_rounds_and_replace_by_id(begun: Store) -> None:
    for number in (10, 0, 9):
        begun.save_attempt(records.attempt(RUN, number))
    failed = records.attempt(RUN, 9, verdict=None, speedup=None, kernel=None, reply_error=records.AWKWARD)
    begun.save_attempt(failed)
    assert [attempt.round for attempt in begun.attempts(RUN)] == [0, 9, 10]
    assert begun.attempt(f"{RUN}.9") == failed
    assert begun.attempt(f"{RUN}.10") == records.attempt(RUN, 10)


def test_a_kernel_is_kept_once(store: Store) -> None:
    kernel = records.kernel()
    store.save_kernel(kernel)
    store.save_kernel(kernel)
    found = store.kernel(kernel.id)
    assert found == kernel
    assert found is not None and found.id == kernel.id


def test_records_of_a_run_that_was_never_created_are_refused(store: Store) -> None:
    for save in (
        lambda: store.save_attempt(records.attempt(RUN)),
        lambda: store.save_call(records.call()),
        lambda: store.save_result(RUN, "k", records.baseline()),
        lambda: store.append(Note(run_id=RUN, message="x")),
    ):
        with pytest.raises(StoreError, match="run"):
            save()


def test_calls_come_in_the_order_in_which_they_started(begun: Store) -> None:
    for second in (2, 0, 1):
        begun.save_call(records.call(f"{RUN}.0/coder/{second}", second=second))
    for ordinal in (5, 4):  # at the same moment: in the order of saving
        begun.save_call(records.call(f"{RUN}.0/judge/{ordinal}", second=3))
    begun.save_call(records.answered(f"{RUN}.0/coder/0", second=0))
    assert [call.key.split("/", 1)[1] for call in begun.calls(RUN)] == [
        "coder/0",
        "coder/1",
        "coder/2",
        "judge/5",
        "judge/4",
    ]


def test_a_call_gets_its_reply_and_never_loses_it(begun: Store) -> None:
    begun.save_call(records.call())
    assert begun.call(records.call().key) == records.call()
    reply = records.answered()
    begun.save_call(reply)
    for state in (CallState.STARTED, CallState.UNCERTAIN, CallState.FAILED, CallState.WAITING):
        begun.save_call(records.call(state=state))
        assert begun.call(reply.key) == reply
    better = records.answered(reply="", usage=Usage(usd=1.0))  # an empty reply is a reply
    begun.save_call(better)
    begun.save_call(records.call())
    assert begun.calls(RUN) == [better]


def test_a_call_without_a_reply_changes_its_state(begun: Store) -> None:
    begun.save_call(records.call())
    uncertain = records.call(state=CallState.UNCERTAIN, usage=Usage(output_tokens=9))
    begun.save_call(uncertain)
    assert begun.call(uncertain.key) == uncertain


def test_prompts_and_replies_may_be_large(begun: Store) -> None:
    large = records.answered(reply="é\x00x" * 2_000_000)
    begun.save_call(large)
    assert begun.call(large.key) == large


@pytest.mark.parametrize(
    "result",
    [records.baseline(), records.evaluation(), records.incorrect(), records.profile(), records.verification()],
    ids=["baseline", "evaluation", "incorrect", "profile", "verification"],
)
def test_a_result_comes_back_whole_and_of_its_own_kind(begun: Store, result: Result) -> None:
    begun.save_result(RUN, "key", records.incorrect())
    begun.save_result(RUN, "key", result)
    assert begun.result("key") == result
    assert type(begun.result("key")) is type(result)


def test_numbers_of_a_profile_keep_their_types(begun: Store) -> None:
    begun.save_result(RUN, "key", records.profile())
    found = begun.result("key")
    assert found is not None
    assert repr(found) == repr(records.profile())


def test_the_report_of_a_profile_goes_to_the_artefacts(begun: Store) -> None:
    report = b"\x00\xff report" * 1000
    begun.save_result(RUN, "key", records.profile(report))
    assert begun.result("key") == records.profile(None)
    assert begun.artifact(hashlib.sha256(report).hexdigest()) == report


def test_events_come_in_order_after_an_id(begun: Store) -> None:
    begun.create_run(records.run("r2"))
    sent: list[Event] = [
        RunStarted(run_id=RUN, task="t", language="cpp", coder="a", judge="b", evaluator="local", rounds=3),
        StageFinished(run_id=RUN, stage="coder", seconds=1.5, usage=Usage(usd=None), parts_s={"build": 1.0}),
        Note(run_id="r2", message=records.AWKWARD, level="warning"),
        AttemptFinished(
            run_id=RUN, attempt_id=f"{RUN}.0", round=0, action="draft", verdict="PASSED", speedup=records.SPEEDUP
        ),
    ]
    ids = [begun.append(event) for event in sent]
    assert ids == sorted(set(ids)) and ids[0] > 0
    stored = begun.events()
    assert [item.id for item in stored] == ids
    assert [item.event for item in stored] == sent
    assert [item.at for item in stored] == sorted(item.at for item in stored)
    assert all(item.at.tzinfo is not None for item in stored)
    assert [item.id for item in begun.events(RUN)] == [ids[0], ids[1], ids[3]]
    assert [item.id for item in begun.events(RUN, after=ids[0], limit=1)] == [ids[1]]
    assert [item.id for item in begun.events(after=ids[1])] == ids[2:]
    assert begun.events(after=ids[-1]) == []


def test_bytes_are_found_under_their_hash(store: Store) -> None:
    for data in (b"", b"\x00" * 100_000, "内核".encode()):
        digest = store.put_artifact(data)
        assert digest == hashlib.sha256(data).hexdigest()
        assert store.put_artifact(data) == digest
        assert store.artifact(digest) == data
    assert store.artifact("../../etc/passwd") is None


def test_close_can_be_repeated(store: Store) -> None:
    store.close()
    store.close()
