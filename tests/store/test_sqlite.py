from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support import records
from support.store_writer import writer

from cudaforge.errors import StoreError
from cudaforge.evaluation import Baseline, Verification
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Note

RUN = "r000000001"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(home)
    made.create_run(records.run(RUN))
    yield made
    made.close()


def test_all_that_was_acknowledged_is_there_after_kill_9(home: Path) -> None:
    with writer(home, RUN, 100_000) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(40)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    store = SqliteStore(home)
    events = store.events(RUN, limit=100_000)
    assert [event.id for event in events][: len(acknowledged)] == acknowledged
    assert len(store.calls(RUN)) >= len(acknowledged)
    for turn, stored in enumerate(events):
        assert isinstance(stored.event, Note)
        assert store.artifact(stored.event.message) == f"{RUN} {turn}".encode() * 100
        assert store.call(f"{RUN}.{turn}/coder/0") is not None
    assert store.append(Note(run_id=RUN, message="goes on")) > acknowledged[-1]
    store.close()
    with closing(sqlite3.connect(home / "cudaforge.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_processes_that_write_at_once_share_one_order_of_events(home: Path) -> None:
    with writer(home, "ra", 30) as one, writer(home, "rb", 30) as other:
        texts = [process.communicate(timeout=60)[0] for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0)
    ids = [[int(line) for line in text.splitlines()] for text in texts]
    store = SqliteStore(home)
    assert [event.id for event in store.events()] == sorted(ids[0] + ids[1]) == list(range(1, 61))
    assert [event.id for event in store.events("ra")] == ids[0]
    assert [event.at for event in store.events()] == sorted(event.at for event in store.events())
    store.close()


def test_threads_may_share_a_store(store: SqliteStore) -> None:
    def work(thread: int) -> list[int]:
        ids = []
        for turn in range(20):
            ids.append(store.append(Note(run_id=RUN, message=f"{thread} {turn}")))
            assert store.events(RUN, after=ids[-1] - 1, limit=1)[0].id == ids[-1]
        return ids

    with ThreadPoolExecutor(8) as pool:
        found = sorted(event_id for ids in pool.map(work, range(8)) for event_id in ids)
    assert found == list(range(1, 161))


def test_a_reader_does_not_wait_for_a_writer(store: SqliteStore, home: Path) -> None:
    with closing(sqlite3.connect(home / "cudaforge.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE runs SET error = 'unfinished'")
        assert store.run(RUN) == records.run(RUN)
        assert store.find_runs()[0].error == ""
        other.execute("ROLLBACK")


def test_a_failed_save_leaves_nothing_and_the_store_usable(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="belongs to a run that is not in"):
        store.append(Note(run_id="unknown", message="x"))
    assert store.append(Note(run_id=RUN, message="x")) == 1


def test_the_report_of_a_profile_is_read_by_key(store: SqliteStore) -> None:
    store.save_result(RUN, "with", records.profile(b"report"))
    store.save_result(RUN, "without", records.profile())
    report = store.report("with")
    assert report is not None
    assert (report.data, report.size, report.collected) == (b"report", 6, None)
    assert store.report("without") is None
    assert store.report("nothing") is None


def test_a_damaged_artefact_is_told_and_mended_by_storing_it_again(store: SqliteStore, home: Path) -> None:
    digest = store.put_artifact(b"data")
    (home / "artifacts" / digest[:2] / digest).write_bytes(b"dat4")
    with pytest.raises(StoreError, match="damaged"):
        store.artifact(digest)
    store.put_artifact(b"data")
    assert store.artifact(digest) == b"data"


def test_results_of_a_run_come_in_the_order_of_their_first_saving(store: SqliteStore) -> None:
    store.save_result(RUN, "b", records.incorrect())
    store.save_result(RUN, "a", records.baseline())
    store.save_result(RUN, "b", records.evaluation())
    assert list(store.results(RUN).items()) == [("b", records.evaluation()), ("a", records.baseline())]
    assert store.results_of(RUN, Baseline) == {"a": records.baseline()}
    assert store.results_of(RUN, Verification) == {}


def test_a_home_that_moves_takes_everything_along(store: SqliteStore, home: Path, tmp_path: Path) -> None:
    digest = store.put_artifact(b"data")
    store.close()
    home.rename(tmp_path / "elsewhere")
    moved = SqliteStore(tmp_path / "elsewhere")
    assert (moved.artifact(digest), moved.run(RUN)) == (b"data", records.run(RUN))
    moved.close()


def test_a_file_that_is_no_database_is_a_store_error(home: Path) -> None:
    home.mkdir()
    (home / "cudaforge.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"cudaforge\.db is not a database") as caught:
        SqliteStore(home)
    assert caught.value.hint


def test_a_damaged_database_is_a_store_error(store: SqliteStore, home: Path) -> None:
    store.close()
    database = home / "cudaforge.db"
    size = database.stat().st_size
    with database.open("r+b") as file:  # all pages but the first, which holds the header and the schema's root
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreError, match="damaged"):
        SqliteStore(home).run(RUN)


def test_a_record_that_cannot_be_read_is_named(store: SqliteStore, home: Path) -> None:
    with closing(sqlite3.connect(home / "cudaforge.db")) as connection:
        connection.execute("""UPDATE runs SET body = '{"id": "r000000001", "colour": 1}'""")
        connection.commit()
    with pytest.raises(StoreError, match=f"Run {RUN} cannot be read"):
        store.run(RUN)


def test_a_home_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be made") as caught:
        SqliteStore(tmp_path / "file" / "home")
    assert "CUDAFORGE_HOME" in caught.value.hint


def test_the_home_is_for_its_owner_alone(store: SqliteStore, home: Path) -> None:
    assert home.stat().st_mode & 0o077 == 0
