"""A spool that is served in this process by a scripted evaluator: how tests of whole commands choose verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from support.scripted import ScriptedEvaluator

from cudaforge.engine.spool import serve
from cudaforge.ports import Evaluator


@contextlib.contextmanager
def serving(directory: Path, evaluator: Evaluator | None = None) -> Iterator[None]:
    """An evaluator, a scripted one where none is given, that serves `directory` from a thread."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(directory, evaluator or ScriptedEvaluator(), poll_s=0.02))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, name="scripted evaluator")
    thread.start()
    try:
        while not any((directory / "evaluators").glob("*")) and thread.is_alive():
            threading.Event().wait(0.01)
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
