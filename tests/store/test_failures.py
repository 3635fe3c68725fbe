from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cudaforge.errors import StoreError
from cudaforge.store.failures import store_errors


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return path


def test_a_full_disk_is_named(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA max_page_count = 3")  # SQLite then says what it says on a full disk
        with pytest.raises(StoreError, match="disk is full") as caught, store_errors(database):
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert "cudaforge gc" in caught.value.hint


def test_a_read_only_database_is_named(database: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
        pytest.raises(StoreError, match="is read-only"),
        store_errors(database),
    ):
        connection.execute("INSERT INTO t VALUES (1)")


def test_a_lock_that_is_not_given_up_is_named(database: Path) -> None:
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(database, timeout=0)) as other:
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="held by another process"), store_errors(database):
            other.execute("BEGIN IMMEDIATE")


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"), store_errors(tmp_path):
        sqlite3.connect(tmp_path)


def test_errors_of_the_file_system_name_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=f"{tmp_path}/x could not be .*: No such file") as caught,
        store_errors(tmp_path),
    ):
        (tmp_path / "x").read_bytes()
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOENT
