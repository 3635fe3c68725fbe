"""Turns what SQLite and the file system say into a StoreError: one sentence and a hint."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cudaforge.errors import StoreError

# By the primary part of SQLite's error name (SQLITE_READONLY_DIRECTORY begins with SQLITE_READONLY).
_SENTENCES = {
    "SQLITE_FULL": ("The disk is full: {path} could not be written.", "Free some space; `cudaforge gc` may help."),
    "SQLITE_READONLY": (
        "{path} is read-only.",
        "Make its folder writable, or set CUDAFORGE_HOME to a copy of it that is.",
    ),
    "SQLITE_PERM": ("{path} may not be opened.", "Check the owner and the permissions of CUDAFORGE_HOME."),
    "SQLITE_CANTOPEN": (
        "{path} cannot be opened.",
        "CUDAFORGE_HOME must be a folder that you can write to; SQLite makes files beside the database.",
    ),
    "SQLITE_CORRUPT": (
        "{path} is damaged.",
        "Restore a copy from backups/ or a pack; `sqlite3 FILE .recover` saves what can be saved.",
    ),
    "SQLITE_NOTADB": ("{path} is not a database.", "Move it away, or set CUDAFORGE_HOME to another folder."),
    "SQLITE_BUSY": (
        "{path} is held by another process.",
        "Wait for it to finish, or end it; SQLite also needs file locks, which some network folders lack.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (
        "The record belongs to a run that is not in {path}.",
        "A run is created before anything of it is saved.",
    ),
    "SQLITE_IOERR": ("{path} could not be read or written.", "Check the disk, and that it is not a network folder."),
}


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raises StoreError, about `path`, for what goes wrong with a database or a file inside."""
    try:
        yield
    except DBAPIError as error:
        original = error.orig
        raise _from_sqlite(
            original if isinstance(original, sqlite3.Error) else sqlite3.Error(str(error)), path
        ) from error
    except sqlite3.Error as error:
        raise _from_sqlite(error, path) from error
    except SQLAlchemyError as error:  # e.g. no connection free within the pool's time
        raise StoreError(f"{path} could not be used: {str(error).splitlines()[0]}.") from error
    except UnicodeEncodeError as error:  # an id with lone surrogates, e.g. from a command line that is not UTF-8
        raise StoreError(f"{error.object!r} is not text that a database can hold.") from error
    except OSError as error:
        raise from_os(error, path) from error


def from_os(error: OSError, path: Path) -> StoreError:
    """The same for an error of the file system."""
    return StoreError(
        f"{error.filename or path} could not be read or written: {error.strerror or error}.",
        "Check free space and permissions of CUDAFORGE_HOME.",
    )


def _from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    for primary, (sentence, hint) in _SENTENCES.items():
        if name.startswith(primary):
            return StoreError(sentence.format(path=path), hint)
    return StoreError(f"{path} could not be read or written: {error}.", "Run `cudaforge doctor`.")
