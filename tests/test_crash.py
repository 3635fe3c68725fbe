"""kill -9 at any point, then drive on: nothing received is asked for again, and the trace is that of a whole run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROCESSES = 2


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where that can be: SIGKILL takes nothing from the page cache, and fsync to a disk takes a minute."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="cudaforge-", dir=memory if os.access(memory, os.W_OK) else None))
    yield made
    shutil.rmtree(made)


def crash(command: str, folder: Path, *shares: list[Any]) -> list[dict[str, Any]]:
    """Runs support/crash.py, once for each share of its arguments, all at a time."""
    folder.mkdir(exist_ok=True)
    program = [sys.executable, str(ROOT / "tests/support/crash.py"), command, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    processes = [
        subprocess.Popen([*program, *map(str, share)], env=environment, stdout=subprocess.PIPE, text=True)
        for share in shares
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(line) for output in outputs for line in output.splitlines()]


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """An uninterrupted run: its trace and its points."""
    (found,) = crash("points", folder / "whole", [])
    return found


def check(result: dict[str, Any], trace: dict[str, Any]) -> None:
    """The promises of a resumed run, whatever the moment of the kill."""
    where, then, now = result["at"], result["then"], result["now"]
    assert set(result["done_after"]).isdisjoint(then["replies"]), where
    assert set(result["done_after"]).isdisjoint(then["results"]), where
    assert len(result["done_after"]) == len(set(result["done_after"])), where
    assert now["uncertain"] == then["in_flight"], where
    for part, expected in trace.items():
        assert result["trace"][part] == expected, f"{part} after a kill at {where}"


def test_the_whole_run_has_every_kind_of_step(whole: dict[str, Any]) -> None:
    calls = {call["purpose"] for call in whole["trace"]["calls"]}
    assert calls == {"draft", "diagnose", "repair", "advise", "revise", "reask"}
    kinds = [key.split("/")[1] for key in whole["trace"]["results"]]
    assert set(kinds) == {"baseline", "evaluate", "profile", "verify"}
    assert kinds.count("verify") == 2
    assert len(whole["trace"]["attempts"]) == 4
    assert len(whole["points"]) > 100


def test_killed_at_every_point_a_run_ends_as_if_it_had_not_been(whole: dict[str, Any], folder: Path) -> None:
    names = {str(number): name for number, name in whole["points"]}
    shares = [list(names)[share::PROCESSES] for share in range(PROCESSES)]
    results = crash("kill", folder / "points", *shares)
    assert len(results) == len(names)
    for result in results:
        assert result["killed"], result["at"]
        check({**result, "at": f"{result['at']} ({names[result['at']]})"}, whole["trace"])
    # The points lie where they should: before the first checkpoint, with a call in flight, with work that was lost.
    assert any(not r["then"]["results"] and not r["then"]["replies"] for r in results)
    assert sum(bool(r["then"]["in_flight"]) for r in results) >= 2 * len(whole["trace"]["calls"])


def test_killed_at_odd_moments_a_run_ends_as_if_it_had_not_been(whole: dict[str, Any], folder: Path) -> None:
    delays = [round(0.02 + 0.045 * step, 3) for step in range(12)]
    for result in crash("random", folder / "moments", delays):
        check(result, whole["trace"])


def test_a_run_whose_every_process_is_killed_still_ends(whole: dict[str, Any], folder: Path) -> None:
    (result,) = crash("often", folder / "often", [29])
    assert result["kills"] > 5
    assert result["trace"] == whole["trace"]
