"""Live events: in order, resumable, none lost, whoever is slow."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from support import records
from support.service import Service, service, until

from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Note, RunFinished, RunQueued, RunState

RUN, OTHER = "r000000001a", "r000000001b"


@pytest.fixture
def running(cudaforge_home: Path) -> Iterator[Service]:
    with service(cudaforge_home, "--workers", "0", "--evaluator", "local:cpu") as started:
        yield started
    for thread in threading.enumerate():  # the service has ended their streams
        if isinstance(thread, Reader):
            thread.join(10)


@pytest.fixture
def record(running: Service, cudaforge_home: Path) -> Iterator[SqliteStore]:
    """Another process's view: it writes what workers would."""
    store = SqliteStore(cudaforge_home)
    for run in (RUN, OTHER):
        store.create_run(records.run(run, state=RunState.RUNNING))
    yield store
    store.close()


class Reader(threading.Thread):
    """Reads a stream as a browser does; `got` grows as events come."""

    def __init__(self, running: Service, path: str, **options: Any) -> None:
        super().__init__(daemon=True)
        self.got: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.status = 0
        self.ended = False
        self._url, self._options = f"{running.url}{path}", options
        self.start()
        until(lambda: bool(self.status))

    def run(self) -> None:
        with httpx2.Client(timeout=30) as client, client.stream("GET", self._url, **self._options) as answer:
            self.status = answer.status_code
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    assert data["event"]["type"] == name
                    self.got.append(data)
                elif line.startswith("id: "):
                    self.ids.append(int(line.removeprefix("id: ")))
        self.ended = True

    @property
    def messages(self) -> list[str]:
        return [data["event"].get("message", data["event"]["type"]) for data in self.got]


def say(record: SqliteStore, message: str, run: str = RUN) -> int:
    return record.append(Note(run_id=run, message=message))


def end(record: SqliteStore, run: str = RUN, state: RunState = RunState.DONE) -> None:
    found = record.run(run)
    assert found is not None
    record.save_run(found.model_copy(update={"state": state}))
    record.append(RunFinished(run_id=run, state=state))


def test_a_stream_has_what_was_and_what_comes_and_ends_with_its_run(running: Service, record: SqliteStore) -> None:
    say(record, "before")
    mine, all_runs = Reader(running, f"/runs/{RUN}/stream"), Reader(running, "/stream")
    until(lambda: mine.messages == ["before"])
    say(record, "other", OTHER)
    last = say(record, "after")
    until(lambda: mine.messages == ["before", "after"] and all_runs.messages == ["other", "after"])
    assert mine.ids[-1] == mine.got[-1]["id"] == last
    end(record)
    until(lambda: mine.ended)
    assert mine.messages[-1] == "run_finished" and not all_runs.ended
    # Nothing new, and none will come: a browser is told to stay away.
    headers = {"Last-Event-ID": str(mine.ids[-1])}
    assert running.client.get(f"/runs/{RUN}/stream", headers=headers).status_code == 204


def test_a_reader_that_comes_back_goes_on_after_the_event_it_has(running: Service, record: SqliteStore) -> None:
    ids = [say(record, str(number)) for number in range(5)]
    by_header = Reader(running, f"/runs/{RUN}/stream", headers={"Last-Event-ID": str(ids[2])})
    by_query = Reader(running, "/stream", params={"after": ids[2]})
    until(lambda: by_header.messages == by_query.messages == ["3", "4"])


def test_a_restart_loses_no_event(running: Service, record: SqliteStore) -> None:
    first = Reader(running, "/stream", params={"after": 0})
    say(record, "1")
    until(lambda: first.messages == ["1"])
    assert running.end() == 0
    until(lambda: first.ended)  # the service ends its streams rather than waiting for them
    say(record, "2")
    running.start()
    say(record, "3")
    second = Reader(running, "/stream", headers={"Last-Event-ID": str(first.ids[-1])})
    say(record, "4")
    until(lambda: second.messages == ["2", "3", "4"])


def test_many_events_come_in_order_without_gaps_to_early_and_late_readers(
    running: Service, record: SqliteStore
) -> None:
    """More than a page and more than what is kept in memory, while readers come and go."""
    early = Reader(running, "/stream", params={"after": 0})
    with record._database.write() as connection:
        from sqlalchemy import insert

        from cudaforge.store.models import EVENTS
        from cudaforge.store.rows import event_values

        rows = [event_values(Note(run_id=RUN if n % 2 else OTHER, message=str(n))) for n in range(2500)]
        connection.execute(insert(EVENTS), rows)
    late = Reader(running, "/stream", params={"after": 0})
    one = Reader(running, f"/runs/{RUN}/stream")
    for number in range(2500, 2600):
        say(record, str(number), RUN if number % 2 else OTHER)
    wanted = [str(number) for number in range(2600)]
    until(lambda: len(early.got) == len(late.got) == 2600 and len(one.got) == 1300)
    assert early.messages == late.messages == wanted and one.messages == wanted[1::2]


def test_a_run_that_was_stopped_and_resumed_is_shown_to_its_present_end(running: Service, record: SqliteStore) -> None:
    end(record, state=RunState.STOPPED)
    record.append(RunQueued(run_id=RUN, reason="resumed"))
    found = record.run(RUN)
    assert found is not None
    record.save_run(found.model_copy(update={"state": RunState.RUNNING}))
    reader = Reader(running, f"/runs/{RUN}/stream")
    until(lambda: len(reader.got) == 2)
    time.sleep(0.3)
    assert not reader.ended
    end(record)
    until(lambda: reader.ended)


def test_a_stalled_reader_holds_nobody_up_and_the_service_ends_in_time(running: Service, record: SqliteStore) -> None:
    parts = urlsplit(running.url)
    stalled = socket.create_connection((parts.hostname, parts.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.sendall(f"GET {parts.path}/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    reader = Reader(running, "/stream", params={"after": 0})
    for number in range(300):
        say(record, f"{number} " + "x" * 20_000)
    until(lambda: len(reader.got) == 300)
    began = time.monotonic()
    assert running.end() == 0
    assert time.monotonic() - began < 20
    stalled.close()


def test_there_are_only_so_many_streams(cudaforge_home: Path) -> None:
    import asyncio

    from cudaforge_api.events import Feed
    from cudaforge_api.problems import ProblemError

    async def go() -> None:
        store = SqliteStore(cudaforge_home)
        feed = Feed(store, 0.01, streams=2, heartbeat_s=0.05)
        feed.enter()
        feed.enter()
        with pytest.raises(ProblemError, match="2 event streams"):
            feed.enter()
        feed.leave()
        feed.enter()
        watching = asyncio.create_task(feed.watch())
        stream = feed.stream(None, 0, until_end=False)
        assert await anext(stream) == b"retry: 1000\n\n"
        assert await anext(stream) == b": heartbeat\n\n"  # in silence
        store.create_run(records.run(RUN))
        of_one = feed.stream(OTHER, 0, until_end=False)
        await anext(of_one)

        async def chatter() -> None:  # of another run, all the time
            while True:
                say(store, "still here")
                await asyncio.sleep(0.01)

        talking = asyncio.create_task(chatter())
        assert await asyncio.wait_for(anext(of_one), 5) == b": heartbeat\n\n"
        talking.cancel()
        feed.close()
        assert [chunk async for chunk in of_one] == []
        watching.cancel()
        store.close()

    asyncio.run(go())
