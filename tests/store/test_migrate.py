from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.schema import CreateTable
from support import records

from cudaforge.errors import StoreError
from cudaforge.store.home import Home
from cudaforge.store.migrate import MIGRATIONS, alembic_config, newest, prepare, revision
from cudaforge.store.models import Base
from cudaforge.store.sqlite import SqliteStore

NEXT = '''"""A revision that a later version might bring."""
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("runs", sa.Column("colour", sa.String(), nullable=False, server_default="blue"))
    op.execute("{statement}")
'''


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def used(home: Home) -> Home:
    """A home at today's schema, with a run in it."""
    store = SqliteStore(home.root)
    store.create_run(records.run("r1"))
    store.close()
    return home


def later_version(folder: Path, statement: str = "UPDATE runs SET colour = 'red'") -> Path:
    """The migrations with one more at their end, which also executes `statement`."""
    copy = folder / "migrations"
    shutil.copytree(MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "versions" / "9000_later.py").write_text(NEXT.format(head=newest(), statement=statement))
    return copy


def ask(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_a_new_home_gets_the_newest_schema_and_the_write_ahead_log(home: Home) -> None:
    prepare(home)
    assert revision(home.database) == newest()
    assert ask(home.database, "PRAGMA journal_mode") == [("wal",)]
    assert not home.backups.exists()


def test_the_migrated_schema_is_that_of_the_models(home: Home) -> None:
    prepare(home)
    engine = create_engine(f"sqlite:///{home.database}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    # What that does not compare: the order of columns, and AUTOINCREMENT.
    for table in Base.metadata.sorted_tables:
        rows = ask(home.database, f"SELECT name FROM pragma_table_info('{table.name}')")
        assert [name for (name,) in rows] == [column.name for column in table.columns]
        ((made,),) = ask(home.database, f"SELECT sql FROM sqlite_master WHERE name = '{table.name}'")
        assert ("AUTOINCREMENT" in str(made)) == ("AUTOINCREMENT" in str(CreateTable(table).compile(engine)))
    engine.dispose()


def test_file_names_tell_the_newest_revision_as_alembic_does() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert scripts.get_heads() == [newest()]
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


def test_an_older_database_is_migrated_and_a_copy_kept(used: Home, tmp_path: Path) -> None:
    prepare(used, later_version(tmp_path))
    assert revision(used.database) == "9000"
    assert ask(used.database, "SELECT id, colour FROM runs") == [("r1", "red")]
    (backup,) = used.backups.iterdir()
    assert revision(backup) == newest()
    assert ask(backup, "SELECT id FROM runs") == [("r1",)]


def test_a_migration_that_fails_changes_nothing(used: Home, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such table"):
        prepare(used, later_version(tmp_path, "INSERT INTO nowhere VALUES (1)"))
    store = SqliteStore(used.root)  # this version still opens it
    assert store.run("r1") == records.run("r1")
    store.close()
    assert ask(used.database, "SELECT count(*) FROM pragma_table_info('runs') WHERE name = 'colour'") == [(0,)]


def test_a_newer_database_is_refused_and_left_alone(used: Home, tmp_path: Path) -> None:
    prepare(used, later_version(tmp_path))
    with pytest.raises(StoreError, match="has schema 9000") as caught:
        SqliteStore(used.root)
    assert "update CudaForge" in caught.value.hint
    assert revision(used.database) == "9000"


def test_a_database_of_something_else_is_refused_and_left_alone(home: Home) -> None:
    home.create()
    ask(home.database, "CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError, match="not one of CudaForge"):
        SqliteStore(home.root)
    assert ask(home.database, "SELECT name FROM sqlite_master") == [("recipes",)]


def test_processes_that_open_a_new_home_at_once_all_succeed(home: Home) -> None:
    code = "import sys, pathlib as p; from cudaforge.store.sqlite import SqliteStore; SqliteStore(p.Path(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", code, str(home.root)]
    openers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(opener.communicate(timeout=60)[1], opener.returncode) for opener in openers] == [("", 0)] * 4
    assert ask(home.database, "SELECT version_num FROM alembic_version") == [(newest(),)]


def test_opening_an_up_to_date_home_needs_no_alembic(used: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from cudaforge.store.sqlite import SqliteStore as S\n"
        "S(Path(sys.argv[1])).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(used.root)], check=True, timeout=60)
