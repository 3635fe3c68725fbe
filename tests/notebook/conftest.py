"""Runs that were really carried out (tests/viewer/data), and results over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.recorded_home import runs_by_task, unpack

from cudaforge.results import RunResult
from cudaforge.store.sqlite import SqliteStore


@pytest.fixture(scope="session")
def recorded_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of recorded runs; only to be looked at."""
    return unpack(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def record(recorded_home: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(recorded_home)
    yield store
    store.close()


@pytest.fixture(scope="session")
def of_run(record: SqliteStore, recorded_home: Path) -> Callable[[str], RunResult]:
    """The result of a recorded run, by its task."""
    ids = runs_by_task(record)
    return lambda task: RunResult(ids[task], recorded_home)
