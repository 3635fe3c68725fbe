"""Drives a run and shows it while it goes: a live table on a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from cudaforge import wiring
from cudaforge.cli import output
from cudaforge.cli.view import live_frame, plain_line
from cudaforge.errors import CudaForgeError, StoreError
from cudaforge.follow import RunView
from cudaforge.ports import Store
from cudaforge.trace import Run

POLL_S = 0.2


def drive(store: Store, run: Run, home: Path) -> Run:
    """Runs `run` to its next rest and returns it as stored.

    Ctrl-C and SIGTERM stop it: the run is stored as stopped and returned. Raises what wiring.resume raises.
    """
    # Not from event 0: what an earlier process showed is looked up, only what is new is told again.
    view = RunView(store, run)
    view.catch_up()
    try:
        asyncio.run(_drive(store, run, home, view))
    except (KeyboardInterrupt, asyncio.CancelledError):
        wiring.settle(store, run.id)
    stored = store.run(run.id)
    if stored is None:
        raise StoreError(f"Run {run.id} is gone from the store.", "Was the home folder replaced meanwhile?")
    return stored


async def _drive(store: Store, run: Run, home: Path, view: RunView) -> None:
    task = asyncio.create_task(wiring.resume(run.id, store, home))
    with _cancelled_by_sigterm(task), _display(view) as show:
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=POLL_S)
                show()
            task.result()
        except asyncio.CancelledError:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CudaForgeError):
                await task
            raise
        finally:
            show()


@contextlib.contextmanager
def _cancelled_by_sigterm(task: asyncio.Task[Run]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (RuntimeError, NotImplementedError):  # not the main thread: a test or a notebook
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class _Frame:
    """Drawn anew by rich's own thread, so that the elapsed time moves even while the loop is busy."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    def __rich__(self) -> RenderableType:
        return live_frame(self.view)


@contextlib.contextmanager
def _display(view: RunView) -> Iterator[Callable[[], object]]:
    """Gives a function that shows what has happened since it was last called."""
    console = output.err()
    if console.is_terminal:
        with Live(_Frame(view), console=console, refresh_per_second=4, transient=True):
            yield view.catch_up
    else:
        yield lambda: _print_lines(view, console)


def _print_lines(view: RunView, console: Console) -> None:
    for stored in view.catch_up():
        if line := plain_line(view, stored):
            console.print(line, soft_wrap=True, markup=False)
