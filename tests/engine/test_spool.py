"""The spool under everything that befalls a shared folder: dead evaluators, races, wrong clocks, foreign files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.small_evaluator import SmallEvaluator, evaluate_request, small_task

from cudaforge.engine.spool import SpoolEvaluator, serve
from cudaforge.engine.spool_files import MAX_DEATHS, Heartbeat, Outcome, Spool, stem_of
from cudaforge.errors import EvaluatorError, Suspended, TaskError
from cudaforge.evaluation import BaselineRequest, EvaluateRequest, Evaluation, Verdict

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool, made."""
    spool = Spool(tmp_path / "spool")
    spool.create()
    return spool


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where small evaluators write what they begin."""
    return tmp_path / "log"


@contextmanager
def evaluator_process(spool: Spool, log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A real evaluator process on `spool`, killed at the end if it still runs."""
    folders = [ROOT, ROOT / "profiling", ROOT / "tests"]
    process = subprocess.Popen(
        [sys.executable, "-m", "support.small_evaluator", "--spool", spool.directory, "--log", log, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], T], seconds: float = 15.0) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def begun(log: Path) -> list[str]:
    """Keys of the work that evaluators began, in order."""
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def drain(spool: Spool, evaluator: SmallEvaluator, lease_s: float = 60.0) -> int:
    return asyncio.run(serve(spool.directory, evaluator, drain=True, lease_s=lease_s, poll_s=0.01))


def ask(spool: Spool, request: EvaluateRequest, wait_s: float = 15.0) -> Evaluation:
    return asyncio.run(SpoolEvaluator(spool.directory, wait_s=wait_s, poll_s=0.01).evaluate(request))


def is_clean(spool: Spool) -> bool:
    """No request, claim, heartbeat or half-written file is left."""
    return not any(names(folder) for folder in (spool.requests, spool.claimed, spool.evaluators, spool.tmp))


# -- asking --------------------------------------------------------------------------------------------------------


def test_question_without_evaluator_suspends_and_is_answered_on_resume(spool: Spool, log: Path) -> None:
    request = evaluate_request("run/0/evaluate")
    with pytest.raises(Suspended) as caught:
        ask(spool, request)
    assert caught.value.waiting_for == request.key
    assert f"cudaforge evaluator --spool {spool.directory}" in caught.value.hint
    assert "cudaforge resume" in caught.value.hint

    assert drain(spool, SmallEvaluator(log)) == 1
    found = ask(spool, request)
    assert found.passed
    assert found.kernel == request.kernel.id
    assert is_clean(spool)


def test_spool_folder_is_made_by_the_first_question(tmp_path: Path) -> None:
    with pytest.raises(Suspended):
        ask(Spool(tmp_path / "a" / "b"), evaluate_request("key"))
    assert len(names(tmp_path / "a" / "b" / "requests")) == 1


def test_asking_again_puts_one_request(spool: Spool, log: Path) -> None:
    for _ in range(3):
        with pytest.raises(Suspended):
            ask(spool, evaluate_request("key"))
    assert len(names(spool.requests)) == 1
    drain(spool, SmallEvaluator(log))
    assert ask(spool, evaluate_request("key")) == ask(spool, evaluate_request("key"))
    assert begun(log) == ["key"]


def test_question_waits_no_longer_than_it_was_told(spool: Spool, log: Path) -> None:
    request = evaluate_request("key", notes="hang")
    with evaluator_process(spool, log):
        until(lambda: names(spool.evaluators))
        started = time.monotonic()
        with pytest.raises(Suspended, match=r"within 0\.3 s"):
            ask(spool, request, wait_s=0.3)
        assert time.monotonic() - started < 5


def test_source_that_is_not_unicode_is_carried(spool: Spool, log: Path) -> None:
    request = evaluate_request("key", text="x = '\ud800'")
    with pytest.raises(Suspended):
        ask(spool, request)
    drain(spool, SmallEvaluator(log))
    assert ask(spool, request).kernel == request.kernel.id


def test_result_of_other_work_under_the_same_key_is_not_taken(spool: Spool, log: Path) -> None:
    with pytest.raises(Suspended):
        ask(spool, evaluate_request("key"))
    drain(spool, SmallEvaluator(log))
    with pytest.raises(EvaluatorError, match="other work"):
        ask(spool, evaluate_request("key", text="another kernel"))
    assert ask(spool, evaluate_request("key")).passed


def test_folder_that_cannot_be_a_spool_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluatorError, match="cannot be used"):
        ask(Spool(tmp_path / "file"), evaluate_request("key"))
    with pytest.raises(EvaluatorError, match="cannot be used"):
        drain(Spool(tmp_path / "file"), SmallEvaluator())


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("notes", "sentence"), [("error", "The abacus lacks a bead"), ("bug", "seven beads")])
def test_error_of_the_evaluator_reaches_who_asked_and_the_next_request_is_served(
    spool: Spool, log: Path, notes: str, sentence: str
) -> None:
    bad, good = evaluate_request("bad", notes=notes), evaluate_request("good")
    for request in (bad, good):
        with pytest.raises(Suspended):
            ask(spool, request)
    assert drain(spool, SmallEvaluator(log)) == 2
    assert begun(log).count("bad") == 2, "tried again once"
    with pytest.raises(EvaluatorError, match=sentence):
        ask(spool, bad)
    assert ask(spool, good).passed


def test_task_that_cannot_run_is_the_tasks_error_and_is_not_tried_again(spool: Spool, log: Path) -> None:
    bad = evaluate_request("bad", notes="no task")
    spool.submit(bad)
    drain(spool, SmallEvaluator(log))
    assert begun(log) == ["bad"]
    with pytest.raises(TaskError, match="divides by zero") as caught:
        ask(spool, bad)
    assert caught.value.hint == "Mend it."


def test_error_is_delivered_once_so_that_a_resumed_run_asks_anew(spool: Spool, log: Path) -> None:
    bad = evaluate_request("bad", notes="error")
    with pytest.raises(Suspended):
        ask(spool, bad)
    drain(spool, SmallEvaluator(log))
    with pytest.raises(EvaluatorError):
        ask(spool, bad)
    with pytest.raises(Suspended):
        ask(spool, bad)
    assert len(names(spool.requests)) == 1


def test_error_that_passes_at_the_second_try_is_no_error(spool: Spool, log: Path) -> None:
    request = evaluate_request("key", notes="flaky")
    with pytest.raises(Suspended):
        ask(spool, request)
    drain(spool, SmallEvaluator(log))
    assert ask(spool, request).passed


# -- evaluators that die, race and leave -----------------------------------------------------------------------------


def test_killed_evaluators_request_is_finished_by_another_with_one_result(spool: Spool, log: Path) -> None:
    request = evaluate_request("key", notes="hang once")
    spool.submit(request)
    with evaluator_process(spool, log, "--lease", "0.6") as first:
        until(lambda: begun(log))
        with evaluator_process(spool, log, "--lease", "0.6"):
            until(lambda: len(names(spool.evaluators)) == 2)
            assert not names(spool.results)
            first.kill()
            until(lambda: names(spool.results) and not names(spool.claimed))
    found = ask(spool, request)
    assert found.passed
    assert found.stages_s["process"] != first.pid
    assert begun(log) == ["key", "key"]
    assert names(spool.results) == [f"{stem_of('key')}.json"]
    assert not names(spool.requests)
    assert not names(spool.claimed)


def test_request_that_kills_evaluators_is_given_up(spool: Spool, log: Path) -> None:
    poison = evaluate_request("poison", notes="die")
    spool.submit(poison)
    for deaths in range(1, MAX_DEATHS + 1):
        with evaluator_process(spool, log, "--lease", "0.3", "--drain") as process:
            assert process.wait(15) == -signal.SIGKILL
        assert len(begun(log)) == deaths
        time.sleep(0.35)  # its lease runs out
    assert drain(spool, SmallEvaluator(log), lease_s=0.3) == 0
    with pytest.raises(EvaluatorError, match="3 evaluators in a row died"):
        ask(spool, poison)
    assert len(begun(log)) == MAX_DEATHS
    assert is_clean(spool)


def test_racing_evaluators_do_each_request_once(spool: Spool, log: Path) -> None:
    keys = [f"key{i}" for i in range(50)]
    with evaluator_process(spool, log) as first, evaluator_process(spool, log) as second:
        until(lambda: len(names(spool.evaluators)) == 2)
        for key in keys:
            spool.submit(evaluate_request(key))
        until(lambda: len(names(spool.results)) == 50)
        workers = {line.split()[0] for line in log.read_text().splitlines()}
        assert workers <= {str(first.pid), str(second.pid)}
    assert sorted(begun(log)) == sorted(keys)
    assert all(ask(spool, evaluate_request(key)).passed for key in keys)
    assert not names(spool.requests)


def test_hosts_whose_clocks_differ_by_days_share_a_spool(spool: Spool, log: Path) -> None:
    slow = evaluate_request("slow", notes="block")  # longer than the lease: it must be kept all the while
    spool.submit(slow)
    with (
        evaluator_process(spool, log, "--lease", "2", "--clock-off", "200000"),
        evaluator_process(spool, log, "--lease", "2", "--clock-off", "-200000"),
    ):
        until(lambda: begun(log))
        assert ask(spool, slow).passed
        assert ask(spool, evaluate_request("quick")).passed
    assert sorted(begun(log)) == ["quick", "slow"]


def test_lease_counts_from_the_file_systems_clock(spool: Spool) -> None:
    request = evaluate_request("key")
    spool.submit(request)
    spool.beat("away", Heartbeat(lease_s=5))
    assert spool.claim("away") is not None
    assert spool.alive()
    assert spool.reap() == []

    heartbeat = spool.evaluators / "away.json"
    stamp = heartbeat.stat().st_mtime - 6
    os.utime(heartbeat, (stamp, stamp))
    assert not spool.alive()
    assert len(spool.reap()) == 1
    assert names(spool.requests) == [f"{stem_of('key')}.1.json"]


def test_late_result_of_an_evaluator_that_lost_its_lease_changes_nothing(spool: Spool) -> None:
    request = evaluate_request("key")
    spool.submit(request)
    late = spool.claim("late")  # without a heartbeat: its lease is over
    assert late is not None
    spool.reap()
    quick = spool.claim("quick")
    assert quick is not None
    assert quick.deaths == 1
    result = asyncio.run(SmallEvaluator().evaluate(request))
    assert spool.finish(quick, Outcome.of(request, result, "quick", 1.0))
    assert not spool.finish(late, Outcome.failure(request, "late", "no result"))
    outcome = spool.outcome("key")
    assert outcome is not None
    assert (outcome.evaluator, outcome.result) == ("quick", result)


def test_result_that_was_late_but_first_spares_the_work(spool: Spool, log: Path) -> None:
    request = evaluate_request("key")
    spool.submit(request)
    late = spool.claim("late")
    assert late is not None
    spool.reap()
    result = asyncio.run(SmallEvaluator().evaluate(request))
    assert spool.finish(late, Outcome.of(request, result, "late", 1.0))
    assert drain(spool, SmallEvaluator(log)) == 0
    assert begun(log) == []
    assert is_clean(spool)


def test_request_that_was_put_in_twice_is_worked_on_once_at_a_time(spool: Spool) -> None:
    spool.submit(evaluate_request("key"))
    (path,) = spool.requests.iterdir()
    text = path.read_text()
    assert spool.claim("one") is not None
    path.write_text(text)
    assert spool.claim("two") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_evaluator_gives_its_request_back(spool: Spool, log: Path, number: signal.Signals) -> None:
    spool.submit(evaluate_request("key", notes="hang"))
    with evaluator_process(spool, log) as process:
        until(lambda: begun(log))
        process.send_signal(number)
        assert process.wait(15) == 130
    assert names(spool.requests) == [f"{stem_of('key')}.0.json"], "nobody died"
    assert not names(spool.claimed)
    assert not names(spool.evaluators)


def test_drain_returns_when_no_request_waits_and_leaves_what_others_work_on(spool: Spool, log: Path) -> None:
    assert drain(spool, SmallEvaluator(log)) == 0
    spool.submit(evaluate_request("others"))
    spool.beat("other", Heartbeat(lease_s=60))
    assert spool.claim("other") is not None
    for key in ("a", "b"):
        spool.submit(evaluate_request(key))
    assert drain(spool, SmallEvaluator(log)) == 2
    assert begun(log) == ["a", "b"], "oldest first"
    assert len(names(spool.claimed)) == 1


def test_evaluator_outlives_a_folder_that_fails_for_a_while(spool: Spool) -> None:
    said: list[str] = []

    async def whole() -> Evaluation:
        server = asyncio.create_task(
            serve(spool.directory, SmallEvaluator(), lease_s=0.2, poll_s=0.01, say=said.append)
        )
        await asyncio.sleep(0.1)
        away = spool.directory.with_name("away")
        spool.directory.rename(away)
        await asyncio.sleep(0.3)
        away.rename(spool.directory)
        await asyncio.sleep(0.2)
        try:
            return await SpoolEvaluator(spool.directory, wait_s=10, poll_s=0.01).evaluate(evaluate_request("key"))
        finally:
            server.cancel()
            await asyncio.wait([server])

    assert asyncio.run(whole()).passed
    assert any("the spool fails" in line for line in said)


# -- files that are not what they should be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"kind": "evaluate"}', b'{"kind": "dance", "key": "key"}', b"null"],
    ids=["empty", "cut", "binary", "deep", "fields missing", "unknown kind", "null"],
)
def test_corrupt_request_becomes_an_error_and_the_next_is_served(spool: Spool, log: Path, text: bytes) -> None:
    (spool.requests / f"{stem_of('key')}.0.json").write_bytes(text)
    spool.submit(evaluate_request("good"))
    assert drain(spool, SmallEvaluator(log)) == 1
    with pytest.raises(EvaluatorError, match="not a request"):
        ask(spool, evaluate_request("key"))
    assert ask(spool, evaluate_request("good")).passed
    assert any(name.endswith(".reason.txt") for name in names(spool.rejected))


def test_foreign_files_are_set_aside(spool: Spool, log: Path) -> None:
    (spool.requests / "notes.txt").write_text("milk, eggs")
    (spool.requests / "folder").mkdir()
    (spool.requests / f"{stem_of('folder')}.0.json").mkdir()
    (spool.requests / f"{stem_of('a')}.0.json").write_text(
        json.dumps(evaluate_request("not a").model_dump(mode="json"))
    )
    (spool.requests / ".nfs0001").write_text("the file system's own")
    (spool.claimed / "shopping").write_text("")
    (spool.evaluators / "ghost.json").write_text('{"lease_s": 1e999}')
    assert not spool.alive()
    assert drain(spool, SmallEvaluator(log)) == 0
    assert names(spool.requests) == [".nfs0001"]
    assert not names(spool.claimed)
    assert not names(spool.evaluators)
    kept = {name.split(".")[0] for name in names(spool.rejected) if not name.endswith(".reason.txt")}
    assert kept == {"notes", "folder", stem_of("folder"), stem_of("a"), "shopping", "ghost"}


def test_result_file_that_cannot_be_read_is_an_error_and_is_made_anew(spool: Spool, log: Path) -> None:
    request = evaluate_request("key")
    (spool.results / f"{stem_of('key')}.json").write_text('{"key": "key", "work"')
    with pytest.raises(EvaluatorError, match="result file cannot be read"):
        ask(spool, request)
    with pytest.raises(Suspended):
        ask(spool, request)
    drain(spool, SmallEvaluator(log))
    assert ask(spool, request).passed


def test_writers_that_died_leave_nothing_for_ever(spool: Spool, log: Path) -> None:
    old, young = spool.tmp / "old", spool.tmp / "young"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (time.time() - 7 * 86400,) * 2)
    drain(spool, SmallEvaluator(log))
    assert names(spool.tmp) == ["young"]


# -- where it runs -----------------------------------------------------------------------------------------------------


def test_verdict_of_a_broken_kernel_is_carried_as_a_result(spool: Spool, log: Path) -> None:
    request = evaluate_request("key", text="broken")
    spool.submit(request)
    drain(spool, SmallEvaluator(log))
    assert ask(spool, request).verdict is Verdict.BUILD_FAILED


def test_two_runs_ask_at_once(spool: Spool) -> None:
    async def whole() -> list[Any]:
        server = asyncio.create_task(serve(spool.directory, SmallEvaluator(), poll_s=0.01))
        await asyncio.sleep(0.1)
        client = SpoolEvaluator(spool.directory, wait_s=10, poll_s=0.01)
        questions: list[Coroutine[Any, Any, Any]] = [client.evaluate(evaluate_request(f"key{i}")) for i in range(5)]
        questions.append(client.baseline(BaselineRequest(key="base", task=small_task())))
        try:
            return await asyncio.gather(*questions)
        finally:
            server.cancel()
            await asyncio.wait([server])

    assert len(asyncio.run(whole())) == 6


# -- several at a time ---------------------------------------------------------------------------------------------


class Crowded(SmallEvaluator):
    """Takes a moment for each evaluation, and knows how many there were at once."""

    now = most = 0

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.2)
        self.now -= 1
        return await super().evaluate(request)


def test_an_evaluator_may_have_several_claims(spool: Spool, log: Path) -> None:
    evaluator, asked = Crowded(log), []
    for i in range(5):
        spool.submit(evaluate_request(f"k{i}"))

    async def slots() -> int:
        asked.append(len(names(spool.claimed)))
        return 3

    assert asyncio.run(serve(spool.directory, evaluator, drain=True, slots=slots, poll_s=0.01)) == 5
    assert evaluator.most == 3 and asked == [1]
    assert all(ask(spool, evaluate_request(f"k{i}")).passed for i in range(5)) and is_clean(spool)


def test_all_claims_are_given_back_by_who_stops(spool: Spool, log: Path) -> None:
    for i in range(3):
        spool.submit(evaluate_request(f"k{i}"))

    async def slots() -> int:
        return 2

    async def stopped() -> None:
        serving = asyncio.create_task(serve(spool.directory, Crowded(log), slots=slots, poll_s=0.01))
        while len(names(spool.claimed)) < 2:
            await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(stopped())
    assert len(names(spool.requests)) == 3 and not names(spool.claimed)
