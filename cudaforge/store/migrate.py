"""Brings a database to the newest schema when it is opened.

Revisions are numbered files, migrations/versions/0001_first.py and so on, in one line without branches. That makes
the usual case cheap: compare the number in the database with the highest file name, and do not import Alembic.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cudaforge.errors import StoreError
from cudaforge.store.failures import store_errors
from cudaforge.store.home import Home

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_S = 30.0
"""How long any connection waits for another's lock."""


def newest(migrations: Path = MIGRATIONS) -> str:
    """The highest revision among the files: `0001`."""
    return max(path.name.split("_")[0] for path in (migrations / "versions").glob("[0-9]*_*.py"))


def prepare(home: Home, migrations: Path = MIGRATIONS) -> None:
    """Makes home and database where missing, and migrates the database where it is older.

    A database that holds something is first copied to backups/. A migration is one transaction: a process that is
    killed in it leaves the old schema. Raises StoreError where the database is newer than this program, damaged,
    or not ours.
    """
    home.create()
    with store_errors(home.database):
        if _is_ready(home.database, migrations):
            return
        with _locked(home.lock):
            _enable_wal(home.database)
            if not _is_ready(home.database, migrations):  # another process may have done it meanwhile
                _upgrade(home, migrations)


def revision(database: Path) -> str | None:
    """The revision that a database is at; None where it has no tables. Raises StoreError where it is not ours."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" in tables:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    if tables - {"sqlite_sequence"}:
        raise StoreError(
            f"{database} is a database, but not one of CudaForge.", "Move it away, or set CUDAFORGE_HOME elsewhere."
        )
    return None


def alembic_config(migrations: Path = MIGRATIONS, connection: Connection | None = None) -> Config:
    """Alembic's configuration, without an ini file, so that an installed wheel needs none."""
    from alembic.config import Config

    config = Config()
    # Config interpolates %(name)s.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _is_ready(database: Path, migrations: Path) -> bool:
    if not database.exists():
        return False
    found, head = revision(database), newest(migrations)
    if found is not None and found > head:
        raise StoreError(
            f"{database} has schema {found}, this version of CudaForge knows up to {head}.",
            "It was written by a newer version: update CudaForge, or set CUDAFORGE_HOME to another folder.",
        )
    return found == head and _journal_mode(database) == "wal"


def _journal_mode(database: Path) -> str:
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _enable_wal(database: Path) -> None:
    """WAL is a property of the file: set once, under the lock, since switching cannot wait for other users."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"{database} cannot use SQLite's write-ahead log here.",
            "Network folders often cannot: set CUDAFORGE_HOME to a folder on a local disk.",
        )


def _upgrade(home: Home, migrations: Path) -> None:
    from alembic import command
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import NullPool

    found = revision(home.database)
    if found is not None:
        _back_up(home, found)
    engine = create_engine(
        URL.create("sqlite", database=str(home.database)), poolclass=NullPool, connect_args={"timeout": BUSY_S}
    )

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # no implicit BEGIN: the one below takes schema changes in as well
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        command.upgrade(alembic_config(migrations, connection), "head")
    engine.dispose()


def _back_up(home: Home, found: str) -> None:
    home.backups.mkdir(exist_ok=True)
    name = f"cudaforge-{found}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db"
    copy_database(home.database, home.backups / name)


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy, also while others write: one snapshot, taken by SQLite's backup. One file, without WAL."""
    with (
        closing(sqlite3.connect(source, timeout=BUSY_S)) as reading,
        closing(sqlite3.connect(target, timeout=BUSY_S)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets go of the lock
