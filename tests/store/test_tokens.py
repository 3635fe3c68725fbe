from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cudaforge.errors import UsageError
from cudaforge.jobs import Scope
from cudaforge.store.sqlite import SqliteStore


@pytest.fixture
def store(cudaforge_home: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(cudaforge_home)
    yield made
    made.close()


def test_a_token_is_found_by_its_secret_until_it_is_revoked(store: SqliteStore) -> None:
    token, secret = store.tokens.create("ci", Scope.SUBMIT, 7)
    assert re.fullmatch(rf"cf_{token.id}_[A-Za-z0-9_-]{{43}}", secret)
    found = store.tokens.find(secret)
    assert found is not None and (found.id, found.scope, found.max_active) == (token.id, Scope.SUBMIT, 7)
    assert store.tokens.list()[0].last_used is not None
    assert store.tokens.revoke("ci").revoked is not None
    assert store.tokens.find(secret) is None


@pytest.mark.parametrize("change", [lambda s: s[:-1] + ("A" if s[-1] != "A" else "B"), lambda s: s + "x", lambda s: ""])
def test_another_secret_finds_nothing(store: SqliteStore, change: Callable[[str], str]) -> None:
    _, secret = store.tokens.create("ci", Scope.READ)
    assert store.tokens.find(change(secret)) is None


def test_the_secret_is_in_no_file_of_the_home(store: SqliteStore, cudaforge_home: Path) -> None:
    _, secret = store.tokens.create("ci", Scope.ADMIN)
    kept = b"".join(path.read_bytes() for path in cudaforge_home.rglob("*") if path.is_file())
    assert secret.encode() not in kept and secret.rpartition("_")[2].encode() not in kept


def test_names_are_unique_among_tokens_in_use(store: SqliteStore) -> None:
    store.tokens.create("ci", Scope.READ)
    with pytest.raises(UsageError, match="already"):
        store.tokens.create("ci", Scope.READ)
    store.tokens.revoke("ci")
    store.tokens.create("ci", Scope.READ)
    with pytest.raises(UsageError, match="no token"):
        store.tokens.revoke("nobody")
    for name in ("", " ", "x" * 101, "a\nb"):
        with pytest.raises(UsageError):
            store.tokens.create(name, Scope.READ)


@pytest.mark.parametrize(
    ("has", "covers"), [(Scope.READ, {"read"}), (Scope.SUBMIT, {"read", "submit"}), (Scope.ADMIN, set(Scope))]
)
def test_larger_scopes_cover_smaller_ones(has: Scope, covers: set[str]) -> None:
    assert {scope for scope in Scope if has.covers(scope)} == covers


def test_a_pack_has_neither_tokens_nor_queue(store: SqliteStore, cudaforge_home: Path, tmp_path: Path) -> None:
    from support import records

    from cudaforge.jobs import Answer, Bounds
    from cudaforge.store.pack import pack

    token, _ = store.tokens.create("ci", Scope.READ)
    store.queue.submit(records.run(), "local", Bounds(), Answer(status=201, body="{}", location="/x"))
    copy = pack(cudaforge_home, tmp_path / "copy").output
    with sqlite3.connect(copy / "cudaforge.db") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        for table in ("tokens", "jobs", "workers", "answers"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert token.id.encode() not in (copy / "cudaforge.db").read_bytes()
