"""`cudaforge pack`: a consistent copy of a home, to move, keep or hand over. Safe while runs are writing."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cudaforge.errors import StoreError, UsageError
from cudaforge.store.artefacts import artefact_path, read_artefact
from cudaforge.store.failures import store_errors
from cudaforge.store.home import Home
from cudaforge.store.migrate import BUSY_S, copy_database
from cudaforge_profiling.types import Frozen

ARCHIVES = (".tar.gz", ".tgz")
SERVICE_TABLES = ("tokens", "jobs", "workers", "answers")
"""Emptied in a pack."""


class Packed(Frozen):
    """What a pack holds."""

    output: Path
    runs: int
    artifacts: int
    bytes: int
    """Of databases and artefacts, before compression."""
    missing: tuple[str, ...] = ()
    """Digests of artefacts that were lost or damaged in the home, and so are not in the pack."""


def pack(home: Path, output: Path) -> Packed:
    """Copies databases and artefacts to `output`: an archive where it ends in .tar.gz or .tgz, else a new folder.

    The copy is a home: point CUDAFORGE_HOME at it (an archive unpacks to one folder, named as the archive). Caches,
    backups and what belongs to a service (tokens, its queue) stay behind. `output` appears whole or not at all.
    Raises UsageError where it exists already or there is nothing to pack, StoreError where it cannot be made.
    """
    source = Home(Path(home).expanduser().absolute())
    output = Path(output).expanduser().absolute()
    if not source.database.is_file():
        raise UsageError(f"{source.root} holds no runs.", "Set CUDAFORGE_HOME to the home to pack.")
    if output.exists():
        raise UsageError(f"{output} exists already.", "Choose another name, or remove it first.")
    with store_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        # Beside the output, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(prefix=".cudaforge-pack-", dir=output.parent) as scratch:
            copy = Home(Path(scratch) / "home")
            copy.create()
            runs, digests = _copy_databases(source, copy)
            if output.name.endswith(ARCHIVES):
                made = Path(scratch) / "archive"
                missing = _write_archive(made, _root_name(output), copy, source, digests)
            else:
                made = copy.root
                missing = _write_folder(copy, source, digests)
            sizes = sum(path.stat().st_size for path in (copy.database, copy.checkpoints) if path.exists())
            made.rename(output)
    kept = {digest: size for digest, size in digests.items() if digest not in missing}
    return Packed(
        output=output, runs=runs, artifacts=len(kept), bytes=sizes + sum(kept.values()), missing=tuple(missing)
    )


def _copy_databases(source: Home, copy: Home) -> tuple[int, dict[str, int]]:
    """Copies both databases; returns the number of runs and the size of each artefact to take along.

    Checkpoints first: nodes store their work before they checkpoint it, so tables that are newer than the
    checkpoint hold all that it speaks of. Artefacts last, and those that the copied table names: their bytes were
    written before their rows.
    """
    if source.checkpoints.is_file():
        copy_database(source.checkpoints, copy.checkpoints)
    copy_database(source.database, copy.database)
    with closing(sqlite3.connect(copy.database, timeout=BUSY_S)) as connection:
        try:
            # A copy is handed on: nobody's token opens it, and no service that is started on it takes up work that
            # the original goes on with.
            connection.execute("PRAGMA secure_delete = ON")
            for table in SERVICE_TABLES:
                connection.execute(f"DELETE FROM {table}")
            connection.commit()
            runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
            rows = connection.execute("SELECT digest, size FROM artifacts WHERE collected IS NULL ORDER BY digest")
            return int(runs), {str(digest): int(size) for digest, size in rows}
        except sqlite3.OperationalError as error:
            raise StoreError(f"{source.database} is not a database of CudaForge: {error}.") from error


def _artefacts(source: Home, digests: dict[str, int], missing: list[str]) -> Iterator[tuple[str, bytes]]:
    for digest in digests:
        try:
            data = read_artefact(source.artifacts, digest)
        except StoreError:  # damaged: a pack is how people rescue the rest, so it says so and goes on
            data = None
        if data is None:
            missing.append(digest)
        else:
            yield digest, data


def _write_folder(copy: Home, source: Home, digests: dict[str, int]) -> list[str]:
    missing: list[str] = []
    for digest, data in _artefacts(source, digests, missing):
        path = artefact_path(copy.artifacts, digest)
        assert path is not None  # it was read under this digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return missing


def _write_archive(archive: Path, root: str, copy: Home, source: Home, digests: dict[str, int]) -> list[str]:
    missing: list[str] = []
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in (copy.database, copy.checkpoints):
            if path.exists():
                tar.add(path, f"{root}/{path.name}", filter=_anonymous)
        for digest, data in _artefacts(source, digests, missing):
            member = tarfile.TarInfo(f"{root}/artifacts/{digest[:2]}/{digest}")
            member.size = len(data)
            member.mtime = int(copy.database.stat().st_mtime)
            tar.addfile(member, io.BytesIO(data))
    return missing


def _root_name(output: Path) -> str:
    return next(output.name.removesuffix(end) for end in ARCHIVES if output.name.endswith(end)) or "cudaforge-home"


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names and numbers of whoever packs."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
