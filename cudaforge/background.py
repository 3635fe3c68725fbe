"""Blocking calls over asynchronous work, also where an event loop runs already, as in a notebook.

The work gets a loop of its own in a thread of its own, and the caller waits for it. Ctrl-C cancels the work, which
then has the time to store where it stands; the caller gets what the work still returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


class Background:
    """A thread with an event loop. One piece of work at a time; `close` ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cudaforge", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Does the work and returns or raises what it does. KeyboardInterrupt where Ctrl-C ended it without result."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("blocking calls cannot be made from inside of one")
        done: Future[_T] = Future()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work()))
            tasks[0].add_done_callback(end)

        def end(task: asyncio.Task[_T]) -> None:
            # A task that is cancelled before its first step has never run: what is waited for is settled here.
            if task.cancelled():
                done.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                done.set_exception(error)
            else:
                done.set_result(task.result())

        interrupted, begun = False, False
        while True:
            try:
                if not begun:
                    begun = True
                    self._loop.call_soon_threadsafe(begin)
                return done.result()
            except KeyboardInterrupt:
                if done.done():  # the work's own
                    raise
                interrupted = True
                self._loop.call_soon_threadsafe(lambda: tasks and tasks[0].cancel())
            except asyncio.CancelledError:
                if interrupted:
                    raise KeyboardInterrupt from None
                raise

    def close(self) -> None:
        """Ends the thread. Idempotent."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def run(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """One piece of work; see Background.run."""
    background = Background()
    try:
        return background.run(work)
    finally:
        background.close()
