"""Connections to cudaforge.db: many readers, one writer at a time, every commit on the disk before it returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL

from cudaforge.store.failures import store_errors
from cudaforge.store.home import Home
from cudaforge.store.migrate import BUSY_S, prepare


class Database:
    """An open, migrated database. Threads may share it; processes each open their own."""

    def __init__(self, home: Home) -> None:
        prepare(home)
        self.path = home.database
        self._engine = create_engine(
            URL.create("sqlite", database=str(home.database)),
            connect_args={"timeout": BUSY_S, "check_same_thread": False},
            pool_size=4,
            max_overflow=28,
        )
        event.listen(self._engine, "connect", _connected)
        event.listen(self._engine, "begin", _begun)
        self._writing = self._engine.execution_options(writes=True)
        # Threads of one process queue here, without SQLite's polling; processes queue at BEGIN IMMEDIATE.
        self._one_writer = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: all that is read inside belongs to one moment. Never waits for a writer."""
        with store_errors(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, durable when it is left, undone when it is left by an exception."""
        with self._one_writer, store_errors(self.path), self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begun does
    # FULL: WAL's usual NORMAL may lose the last commits when the machine loses power.
    for pragma in ("synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {int(BUSY_S * 1000)}"):
        connection.execute(f"PRAGMA {pragma}")


def _begun(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once: a lock taken later, inside, could fail for good on a stale snapshot.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
