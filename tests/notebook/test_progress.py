"""A run that goes on, shown live: the output follows the events and ends with where the run stands."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from support.recorded_home import PASSED, Copy, runs_by_task, unpack

from cudaforge.errors import UsageError
from cudaforge.notebook.progress import watch
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Note

RUN = "r00000live0"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(unpack(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def shown() -> Iterator[CapturingDisplayPublisher]:
    """What a cell would show: each output, and each update of one."""
    shell = InteractiveShell.instance()
    before, shell.display_pub = shell.display_pub, CapturingDisplayPublisher()
    yield shell.display_pub
    shell.display_pub = before


def texts(shown: CapturingDisplayPublisher) -> list[str]:
    return [output["data"]["text/html"] for output in shown.outputs]


def becomes(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rounds_appear_as_they_end_and_the_last_picture_is_the_end(
    store: SqliteStore, shown: CapturingDisplayPublisher
) -> None:
    copy = Copy(store, runs_by_task(store)[PASSED], RUN, rounds=7)
    with watch(store, RUN, poll_s=0.02):
        copy.begin(0)
        becomes(lambda: "round 0: the Coder writes" in texts(shown)[-1])
        for number in range(7):
            copy.add(number)
        becomes(lambda: "6★" in texts(shown)[-1])
        copy.begin(6, "verify")
        becomes(lambda: "verifying the best kernel" in texts(shown)[-1])
        store.append(Note(run_id=RUN, level="warning", message="<b>careful</b>"))
        becomes(lambda: "note: &lt;b&gt;careful&lt;/b&gt;" in texts(shown)[-1])
        copy.finish()
    last = texts(shown)[-1]
    assert "1.40x</span> over eager [1.37, 1.45], verified" in last
    assert "verifying" not in last and ">done<" in last
    assert "no model was paid" in last
    assert all(output["update"] for output in shown.outputs[1:])
    assert len({output["transient"]["display_id"] for output in shown.outputs}) == 1


def test_the_elapsed_time_moves_while_nothing_happens(store: SqliteStore, shown: CapturingDisplayPublisher) -> None:
    copy = Copy(store, runs_by_task(store)[PASSED], RUN)
    with watch(store, RUN, poll_s=0.05):
        copy.begin(0)
        elapsed: set[str] = set()

        def moved() -> bool:
            elapsed.update(re.findall(r"the Coder writes … ([\d.]+ m?s)", texts(shown)[-1]))
            return len(elapsed) > 1

        becomes(moved)


def test_an_error_in_the_block_passes_through_and_the_end_is_shown(
    store: SqliteStore, shown: CapturingDisplayPublisher
) -> None:
    copy = Copy(store, runs_by_task(store)[PASSED], RUN)
    with pytest.raises(ZeroDivisionError), watch(store, RUN, poll_s=0.02):
        copy.begin(0)
        raise ZeroDivisionError
    assert "the Coder writes" not in texts(shown)[-1]


def test_an_unknown_run_is_refused(store: SqliteStore) -> None:
    with pytest.raises(UsageError, match="no run 'r0'"), watch(store, "r0"):
        pass
