"""Live events: every stream is "events after id N", from memory while it keeps up and from the database when not.

One task looks into the database while anybody listens (the events come from worker processes), turns each new event
into its bytes once, and wakes the streams. A stream never holds more than a page of events: a slow reader falls back
to reading pages from the database, and one that takes nothing at all is cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from cudaforge.shapes import to_json
from cudaforge.trace import RunFinished, StoredEvent
from cudaforge_api.problems import ProblemError, log, response

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

KEPT = 2000
"""Events kept in memory for streams that are up to date."""
PAGE = 200
RETRY_MS = 1000
"""What a browser waits before it connects again."""
HEARTBEAT = b": heartbeat\n\n"


class Piece(NamedTuple):
    """One event, ready to be sent."""

    id: int
    run_id: str
    data: bytes
    ends: bool
    """A run came to its end with it."""


def piece(stored: StoredEvent) -> Piece:
    """An event in the form of a stream: its id, its type as the event's name, and the StoredEvent as JSON."""
    event = stored.event
    data = format_sse_event(data_str=to_json(stored), event=event.type, id=str(stored.id))
    return Piece(stored.id, event.run_id, data, isinstance(event, RunFinished))


class Feed:
    """All streams of a service."""

    def __init__(self, record: SqliteStore, poll_s: float, streams: int, heartbeat_s: float) -> None:
        self._record = record
        self._poll_s, self._most, self._heartbeat_s = poll_s, streams, heartbeat_s
        self._recent: deque[Piece] = deque(maxlen=KEPT)
        self._watching = False
        """Whether `_recent` holds every event with an id above `_from` and up to `_last`."""
        self._from = self._last = 0
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._closed = False
        self.listeners = 0
        """Open streams."""

    async def watch(self) -> None:
        """Looks for new events for as long as anybody listens; runs until it is cancelled."""
        while True:
            await self._wanted.wait()
            try:
                if not self._watching:
                    self._from = self._last = await run_in_threadpool(self._record.newest_event)
                    self._watching = True
                new = await run_in_threadpool(self._pieces, None, self._last)
            except Exception as error:  # whatever it is: without this task every stream would be silent for ever
                log.error("The events cannot be read: %s", error)
                await asyncio.sleep(1.0)
                continue
            if new and self._watching:  # the last listener may have left meanwhile
                self._recent.extend(new)
                self._last = new[-1].id
                if len(self._recent) == KEPT:
                    self._from = max(self._from, self._recent[0].id - 1)
                self._wake()
            if len(new) < PAGE:
                await asyncio.sleep(self._poll_s)

    def close(self) -> None:
        """Ends all streams; clients connect again and go on where they were."""
        self._closed = True
        self._wake()

    def enter(self) -> None:
        """Counts a stream in. Raises ProblemError where there are too many."""
        if self.listeners >= self._most:
            raise ProblemError("limit-reached", f"{self._most} event streams are open.", "Close some, or ask /events.")
        self.listeners += 1
        self._wanted.set()

    def leave(self) -> None:
        """Counts it out. What happens while nobody listens is not watched."""
        self.listeners -= 1
        if not self.listeners:
            self._wanted.clear()
            self._watching = False
            self._recent.clear()

    async def stream(self, run_id: str | None, after: int, until_end: bool) -> AsyncIterator[bytes]:
        """Events after `after`, of one run or of all, as they come. `until_end`: ends with the run."""
        yield format_sse_event(data_str=None, retry=RETRY_MS)
        clock = asyncio.get_running_loop().time
        ended, sent = False, clock()
        while not self._closed:
            news = self._news  # before the look: what comes after it wakes this stream
            if self._watching and after >= self._from:
                batch, after = self._page_in_memory(run_id, after)
                caught_up = after >= self._last
            else:
                seen = self._last if self._watching else None
                batch = await run_in_threadpool(self._pieces, run_id, after)
                if batch:
                    after = batch[-1].id
                elif seen is not None:  # ids become visible in order: of this run there is none up to `seen`
                    after = max(after, seen)
                caught_up = False
            if batch:
                ended = batch[-1].ends
                yield b"".join(entry.data for entry in batch)
                sent = clock()
            elif not self._watching:
                await asyncio.sleep(self._poll_s)
            if not caught_up:
                continue
            if ended and until_end:
                return
            try:  # events of other runs wake this stream, too: only what it sends itself is a sign of life
                await asyncio.wait_for(news.wait(), max(0.0, sent + self._heartbeat_s - clock()))
            except TimeoutError:
                yield HEARTBEAT
                sent = clock()

    def _page_in_memory(self, run_id: str | None, after: int) -> tuple[list[Piece], int]:
        """The next events after `after`, those of the run among them, and the id that the page reaches to."""
        page: deque[Piece] = deque(maxlen=PAGE)
        for entry in reversed(self._recent):  # from the newest, where nearly every stream stands
            if entry.id <= after:
                break
            page.appendleft(entry)  # where there are too many, the newest fall out
        return [entry for entry in page if run_id is None or entry.run_id == run_id], page[-1].id if page else after

    def _pieces(self, run_id: str | None, after: int) -> list[Piece]:
        return [piece(stored) for stored in self._record.events(run_id, after=after, limit=PAGE)]

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class EventStream(StreamingResponse):
    """Sends a feed's events. It is counted while it is open, and cut off when its client takes nothing for long."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, run_id: str | None, after: int, send_s: float) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may hold events back
        super().__init__(feed.stream(run_id, after, until_end=run_id is not None), headers=headers)
        self._feed, self._send_s = feed, send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), self._send_s)
            except TimeoutError:
                raise OSError("the client takes nothing") from None  # how Starlette learns that a client has gone

        try:
            self._feed.enter()
        except ProblemError as error:
            await response(error.problem)(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, in_time)
        finally:
            self._feed.leave()
