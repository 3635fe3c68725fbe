"""Files under their SHA-256: artifacts/ab/abcdef... A file is there whole or not at all, and is never changed."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from cudaforge.errors import StoreError
from cudaforge.store.failures import from_os

TEMPORARY = ".new-"
"""Prefix of a file that is still being written; gc removes those that a crash has left."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def artefact_path(folder: Path, digest: str) -> Path | None:
    """Where a digest's bytes lie; None where `digest` is no SHA-256 in hex, so that none leads out of the folder."""
    return folder / digest[:2] / digest if _DIGEST.fullmatch(digest) else None


def write_artefact(folder: Path, data: bytes) -> str:
    """Keeps the bytes, durable on return (file and folder entries are synced), and returns their digest."""
    digest = hashlib.sha256(data).hexdigest()
    path = folder / digest[:2] / digest
    try:
        if path.is_file() and path.read_bytes() == data:  # a damaged one is written anew
            return digest
        _make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise from_os(error, path) from error
    return digest


def read_artefact(folder: Path, digest: str) -> bytes | None:
    """The bytes, or None where there are none. Raises StoreError where they do not have this hash."""
    path = artefact_path(folder, digest)
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os(error, path) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise StoreError(f"{path} is damaged: its content does not have its name's hash.", "Restore it from a pack.")
    return data


def _make_folder(folder: Path) -> None:
    """mkdir -p, with every new folder's entry synced into its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
