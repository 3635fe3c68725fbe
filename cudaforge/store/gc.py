"""`cudaforge gc`: deletes what is large and can be made again. Runs, prompts, replies and results always stay."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, update

from cudaforge.errors import UsageError
from cudaforge.store.artefacts import TEMPORARY, artefact_path
from cudaforge.store.codec import stamp
from cudaforge.store.database import Database
from cudaforge.store.failures import store_errors
from cudaforge.store.home import Home
from cudaforge.store.models import ARTIFACTS
from cudaforge.trace import now
from cudaforge_profiling.types import Frozen

DOOMED = ".gc-"
"""Prefix of a build folder that is being deleted: renamed first, so that nobody sees half of one."""
_BATCH = 50
"""Reports deleted in one transaction; a run that wants to write waits for one batch at most."""


class Collected(Frozen):
    """What was freed, or would be where `dry_run`."""

    dry_run: bool
    reports: int = 0
    report_bytes: int = 0
    builds: int = 0
    build_bytes: int = 0
    leftovers: int = 0
    """Files and folders that a crash had left half-written or half-deleted."""
    leftover_bytes: int = 0

    @property
    def bytes(self) -> int:
        """All that was freed."""
        return self.report_bytes + self.build_bytes + self.leftover_bytes


def collect(home: Path, older_than_days: float = 30.0, dry_run: bool = False) -> Collected:
    """Deletes profiler reports and build-cache folders that are older; returns what it freed.

    A report's age counts from when it was last stored; readers of a deleted one are told when it was collected. A
    build's age counts from the newest change to its folder or to a file directly in it. Safe while runs are writing.
    Raises UsageError for a negative age, StoreError where something cannot be deleted.
    """
    if not older_than_days >= 0:
        raise UsageError("The age in days must be zero or more.")
    place = Home(Path(home).expanduser().absolute())
    if not place.root.is_dir():
        return Collected(dry_run=dry_run)
    with store_errors(place.root):
        reports = _collect_reports(place, older_than_days, dry_run) if place.database.is_file() else []
        before = time.time() - older_than_days * 86400
        builds, leftovers = _collect_builds(place.build_cache, before, dry_run)
        leftovers += _collect_unfinished(place.artifacts, before, dry_run)
    return Collected(
        dry_run=dry_run,
        reports=len(reports),
        report_bytes=sum(reports),
        builds=len(builds),
        build_bytes=sum(builds),
        leftovers=len(leftovers),
        leftover_bytes=sum(leftovers),
    )


def _collect_reports(home: Home, older_than_days: float, dry_run: bool) -> list[int]:
    """Sizes of the reports that go. Deleting stands in the transaction that marks them: a writer that stores the same
    bytes again comes before it, and makes them young, or after it, and finds them gone."""
    database = Database(home)
    old = select(ARTIFACTS.c.digest, ARTIFACTS.c.size).where(
        ARTIFACTS.c.kind == "report",
        ARTIFACTS.c.collected.is_(None),
        ARTIFACTS.c.created < stamp(now() - timedelta(days=older_than_days)),
    )
    sizes: list[int] = []
    try:
        if dry_run:
            with database.read() as connection:
                return [row.size for row in connection.execute(old)]
        while True:
            with database.write() as connection:
                batch = connection.execute(old.limit(_BATCH)).all()
                for row in batch:
                    path = artefact_path(home.artifacts, row.digest)
                    if path is not None:
                        path.unlink(missing_ok=True)
                digests = [row.digest for row in batch]
                connection.execute(
                    update(ARTIFACTS).where(ARTIFACTS.c.digest.in_(digests)).values(collected=stamp(now()))
                )
            sizes += [row.size for row in batch]
            if len(batch) < _BATCH:
                return sizes
    finally:
        database.close()


def _collect_builds(cache: Path, before: float, dry_run: bool) -> tuple[list[int], list[int]]:
    """Sizes of old builds, and of what an earlier collection was killed in."""
    builds: list[int] = []
    leftovers: list[int] = []
    for entry in sorted(_children(cache)):
        with suppress(FileNotFoundError):  # gone meanwhile: renamed by a build that has finished, or another gc
            doomed = entry.name.startswith(DOOMED)
            if not doomed and _changed(entry) >= before:
                continue
            size = _size(entry)
            if not dry_run:
                _delete(entry if doomed else entry.rename(cache / f"{DOOMED}{os.getpid()}-{entry.name}"))
            (leftovers if doomed else builds).append(size)
    return builds, leftovers


def _collect_unfinished(artifacts: Path, before: float, dry_run: bool) -> list[int]:
    """Sizes of artefacts whose writer was killed before the rename."""
    sizes: list[int] = []
    for folder in _children(artifacts):
        for path in _children(folder):
            with suppress(FileNotFoundError):  # renamed meanwhile: its writer has finished
                if path.name.startswith(TEMPORARY) and _changed(path) < before:
                    size = _size(path)
                    if not dry_run:
                        path.unlink()
                    sizes.append(size)
    return sizes


def _children(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _changed(path: Path) -> float:
    """When a file, or a folder and what lies directly in it, last changed; seconds since the epoch."""
    inside = [entry.lstat().st_mtime for entry in _children(path)] if not path.is_symlink() else []
    return max([path.lstat().st_mtime, *inside])


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(entry.lstat().st_size for entry in path.rglob("*") if not entry.is_dir())


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
