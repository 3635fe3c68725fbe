from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cudaforge.errors import StoreError
from cudaforge.store.artefacts import artefact_path, read_artefact, write_artefact


def test_bytes_lie_under_their_hash_and_nothing_else_is_left(tmp_path: Path) -> None:
    digest = write_artefact(tmp_path / "artifacts", b"data")
    assert digest == hashlib.sha256(b"data").hexdigest()
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [Path("artifacts", digest[:2], digest)]


def test_storing_the_same_bytes_again_leaves_the_file_alone(tmp_path: Path) -> None:
    path = artefact_path(tmp_path, write_artefact(tmp_path, b"data"))
    assert path is not None
    before = path.stat()
    write_artefact(tmp_path, b"data")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "name", ["", "x", "../" * 8 + "etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", "/" + "0" * 63]
)
def test_only_a_digest_is_a_name(tmp_path: Path, name: str) -> None:
    assert artefact_path(tmp_path, name) is None
    assert read_artefact(tmp_path, name) is None


def test_a_file_that_does_not_have_its_hash_is_refused(tmp_path: Path) -> None:
    digest = write_artefact(tmp_path, b"data")
    (tmp_path / digest[:2] / digest).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        read_artefact(tmp_path, digest)


def test_a_folder_that_cannot_be_written_is_a_store_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="could not be read or written"):
        write_artefact(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
