from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from support import records
from support.store_writer import writer

from cudaforge.errors import UsageError
from cudaforge.store.gc import collect
from cudaforge.store.pack import pack
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Note

RUN = "r000000001"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a run, an artefact, a checkpoint and a cache."""
    folder = tmp_path / "home"
    store = SqliteStore(folder)
    store.create_run(records.run(RUN))
    store.put_artifact(b"data")
    store.close()
    with closing(sqlite3.connect(folder / "checkpoints.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE checkpoints (x)")
        connection.execute("INSERT INTO checkpoints VALUES (7)")
        connection.commit()
    (folder / "cache" / "build").mkdir(parents=True)
    (folder / "cache" / "build" / "large.so").write_bytes(b"x")
    return folder


def test_a_folder_is_a_home_of_its_own(home: Path, tmp_path: Path) -> None:
    packed = pack(home, tmp_path / "new" / "copy")
    assert (packed.runs, packed.artifacts, packed.missing) == (1, 1, ())
    names = sorted(str(path.relative_to(packed.output)) for path in packed.output.rglob("*") if path.is_file())
    digest = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert names == [f"artifacts/3a/{digest}", "checkpoints.db", "cudaforge.db"]
    with closing(sqlite3.connect(packed.output / "checkpoints.db")) as connection:
        assert connection.execute("SELECT x FROM checkpoints").fetchall() == [(7,)]
    copy = SqliteStore(packed.output)
    assert (copy.run(RUN), copy.artifact(digest)) == (records.run(RUN), b"data")
    assert copy.append(Note(run_id=RUN, message="goes on here")) == 1
    copy.close()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["copy"]


@pytest.mark.parametrize("name", ["trace.tar.gz", "trace.tgz"])
def test_an_archive_unpacks_to_one_folder_that_is_a_home(home: Path, tmp_path: Path, name: str) -> None:
    pack(home, tmp_path / name)
    with tarfile.open(tmp_path / name) as tar:
        assert {member.name.split("/", 1)[0] for member in tar} == {"trace"}
        assert {(member.uid, member.uname) for member in tar} == {(0, "")}
        tar.extractall(tmp_path / "elsewhere", filter="data")
    copy = SqliteStore(tmp_path / "elsewhere" / "trace")
    assert copy.run(RUN) == records.run(RUN)
    copy.close()


@pytest.mark.parametrize("name", ["copy", "copy.tar.gz"])
def test_a_pack_made_while_a_run_is_writing_is_consistent(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    with writer(home, RUN, 100_000) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        packed = pack(home, tmp_path / name)
    folder = packed.output
    if name.endswith(".gz"):
        with tarfile.open(packed.output) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
        folder = tmp_path / "unpacked" / "copy"
    copy = SqliteStore(folder)
    events = copy.events(limit=100_000)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert len(events) >= len(acknowledged)
    assert packed.missing == ()
    for turn, stored in enumerate(events):
        assert isinstance(stored.event, Note)
        assert copy.artifact(stored.event.message) is not None
        assert copy.call(f"{RUN}.{turn}/coder/0") is not None
    copy.close()


def test_what_is_lost_or_damaged_is_told_and_the_rest_packed(home: Path, tmp_path: Path) -> None:
    store = SqliteStore(home)
    lost, damaged = store.put_artifact(b"lost"), store.put_artifact(b"damaged")
    store.close()
    (home / "artifacts" / lost[:2] / lost).unlink()
    (home / "artifacts" / damaged[:2] / damaged).write_bytes(b"?")
    packed = pack(home, tmp_path / "copy")
    assert set(packed.missing) == {lost, damaged}
    assert packed.artifacts == 1


def test_a_collected_report_is_not_missed(home: Path, tmp_path: Path) -> None:
    store = SqliteStore(home)
    store.save_result(RUN, "p", records.profile(b"report"))
    store.close()
    collect(home, 0)
    packed = pack(home, tmp_path / "copy")
    assert packed.missing == ()
    copy = SqliteStore(packed.output)
    report = copy.report("p")
    assert report is not None and report.collected is not None
    copy.close()


def test_nothing_is_overwritten(home: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tar.gz").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        pack(home, tmp_path / "there.tar.gz")
    assert (tmp_path / "there.tar.gz").read_text() == "mine"


def test_a_home_without_runs_has_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no runs"):
        pack(tmp_path / "nowhere", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
