"""`watch`: a run that goes on, shown live in a notebook's cell. Needs IPython alone, no widgets.

A thread asks the store for "events after id N", as the terminal and the viewer do, and replaces one output. What is
shown last is where the run then stands, so a saved notebook tells the end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cudaforge.errors import StoreError, UsageError
from cudaforge.follow import RunView, reference_line, spending
from cudaforge.notebook import need
from cudaforge.notebook.display import MOST_TRIED, Values, render
from cudaforge.ports import Store

POLL_S = 0.3
TICK_S = 1.0
"""How often the elapsed time moves while nothing happens."""


@contextmanager
def watch(store: Store, run_id: str, *, poll_s: float = POLL_S) -> Iterator[None]:
    """Shows the run's rounds, the stage under way, spending and the best so far, until the block is left.

    `store` is read from a thread of its own, which stores allow. What goes wrong with the display never reaches the
    run. Raises UsageError where there is no such run, or no IPython.
    """
    ipython = need("IPython.display", "Live progress")
    run = store.run(run_id)
    if run is None:
        raise UsageError(f"There is no run {run_id!r}.", "`cudaforge.runs()` lists them.")
    view, ended = RunView(store, run), threading.Event()
    shown = ipython.DisplayHandle()
    shown.display(_html(ipython, view))
    thread = threading.Thread(target=_follow, args=(ipython, view, shown, ended, poll_s), name="cudaforge-watch")
    thread.daemon = True
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def _follow(ipython: Any, view: RunView, shown: Any, ended: threading.Event, poll_s: float) -> None:
    waited = 0.0
    while True:
        last = ended.wait(poll_s)
        waited += poll_s
        try:
            news = view.catch_up()
            if last or news or (view.stage and waited >= TICK_S):
                shown.update(_html(ipython, view, last=last))
                waited = 0.0
        except StoreError:  # a locked or vanished database is the run's to report, not the display's
            if last:
                return
        if last:
            return


def _html(ipython: Any, view: RunView, last: bool = False) -> Any:
    return ipython.HTML(render("progress", frame(view, last=last)))


def frame(view: RunView, *, last: bool = False) -> Values:
    """What the template draws: the state after the events so far."""
    from cudaforge import words
    from cudaforge.describe import tried

    attempts = sorted(view.attempts.values(), key=lambda a: a.round)
    best = view.attempts.get(view.best)
    outcome = view.run.outcome
    verified = outcome.speedup.eager if outcome and outcome.win and outcome.speedup else None
    return {
        "run": view.run,
        "reference": reference_line(view.baseline),
        "rounds": [(a, words.one_line(tried(a), MOST_TRIED)) for a in attempts],
        "rounds_left_out": 0,
        "best": view.best,
        "so_far": best,
        "verified": verified,
        "reason": outcome.reason if outcome else view.run.error,
        "notes": view.notes[-3:],
        "spent": spending(view),
        "stage": "" if last else view.stage_line(),
    }
