from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import records

from cudaforge.errors import UsageError
from cudaforge.store.gc import Collected, collect
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import now

RUN = "r000000001"
REPORT = b"report" * 100


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[SqliteStore]:
    """A store with a profile `p` that has a report, and an artefact that is none."""
    made = SqliteStore(home)
    made.create_run(records.run(RUN))
    made.save_result(RUN, "p", records.profile(REPORT))
    made.put_artifact(b"kept")
    yield made
    made.close()


def age(path: Path, days: float) -> None:
    moment = time.time() - days * 86400
    for entry in [*path.rglob("*"), path]:
        os.utime(entry, (moment, moment))


def build(home: Path, name: str, days: float) -> Path:
    folder = home / "cache" / "build" / name
    (folder / "objects").mkdir(parents=True)
    (folder / "kernel.so").write_bytes(b"x" * 1000)
    (folder / "objects" / "kernel.o").write_bytes(b"x" * 500)
    age(folder, days)
    return folder


def test_an_old_report_goes_and_its_reader_is_told_when(store: SqliteStore, home: Path) -> None:
    freed = collect(home, older_than_days=0)
    assert (freed.reports, freed.report_bytes, freed.bytes) == (1, len(REPORT), len(REPORT))
    report = store.report("p")
    assert report is not None
    assert (report.data, report.size) == (None, len(REPORT))
    assert report.collected is not None and report.collected <= now()
    assert store.artifact(report.digest) is None
    assert store.result("p") == records.profile()
    assert collect(home, older_than_days=0) == Collected(dry_run=False)


def test_a_young_report_and_other_artefacts_stay(store: SqliteStore, home: Path) -> None:
    kept = store.put_artifact(b"kept")
    assert collect(home, older_than_days=30) == Collected(dry_run=False)
    collect(home, older_than_days=0)
    assert store.artifact(kept) == b"kept"


def test_a_report_that_is_also_kept_as_an_artefact_stays(store: SqliteStore, home: Path) -> None:
    digest = store.put_artifact(REPORT)
    store.save_result(RUN, "q", records.profile(REPORT))
    assert collect(home, older_than_days=0).reports == 0
    assert store.artifact(digest) == REPORT


def test_a_collected_report_that_is_stored_again_is_back(store: SqliteStore, home: Path) -> None:
    collect(home, older_than_days=0)
    store.save_result(RUN, "q", records.profile(REPORT))
    for key in ("p", "q"):
        report = store.report(key)
        assert report is not None
        assert (report.data, report.collected) == (REPORT, None)


def test_many_reports_go_in_one_call(store: SqliteStore, home: Path) -> None:
    for number in range(60):
        store.save_result(RUN, f"p{number}", records.profile(str(number).encode()))
    assert collect(home, older_than_days=0).reports == 61


def test_old_builds_go_and_young_ones_stay(home: Path) -> None:
    old, young = build(home, "old", 31), build(home, "young", 29)
    touched = build(home, "touched", 31)
    os.utime(touched / "kernel.so")
    freed = collect(home)
    assert (freed.builds, freed.build_bytes) == (1, 1500)
    assert not old.exists()
    assert (young / "objects" / "kernel.o").exists() and touched.exists()


def test_what_a_crash_left_goes(store: SqliteStore, home: Path) -> None:
    build(home, ".gc-17-half", 0)
    unfinished = home / "artifacts" / "ab" / ".new-x"
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.write_bytes(b"12345")
    assert collect(home).leftovers == 1  # a young unfinished file may have a writer
    age(unfinished, 31)
    freed = collect(home)
    assert (freed.leftovers, freed.leftover_bytes) == (1, 5)
    assert not unfinished.exists()
    assert list((home / "cache" / "build").iterdir()) == []


def test_a_dry_run_tells_the_same_and_deletes_nothing(store: SqliteStore, home: Path) -> None:
    old = build(home, "old", 31)
    told = collect(home, older_than_days=0, dry_run=True)
    assert (told.reports, told.builds) == (1, 1)
    report = store.report("p")
    assert report is not None and report.data == REPORT
    assert old.exists()
    assert collect(home, older_than_days=0) == told.model_copy(update={"dry_run": False})


def test_a_home_that_is_not_there_is_not_made(home: Path) -> None:
    assert collect(home) == Collected(dry_run=False)
    assert not home.exists()


def test_an_age_below_zero_is_refused(home: Path) -> None:
    with pytest.raises(UsageError):
        collect(home, older_than_days=-1)
