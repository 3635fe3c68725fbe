"""The service in this process, over a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.scripted import TASK_SOURCE

from cudaforge.jobs import Scope
from cudaforge.store.sqlite import SqliteStore
from cudaforge_api.app import create_app
from cudaforge_api.settings import Settings

Start = Callable[..., TestClient]


@pytest.fixture
def start(cudaforge_home: Path) -> Iterator[Start]:
    """Starts a service with these settings; all are stopped at the end."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> TestClient:
            values = {"home": cudaforge_home, "evaluators": ("local:cpu",), "poll_s": 0.01, **settings}
            client = TestClient(create_app(Settings(**values)), base_url="http://localhost/api/v1")
            return stack.enter_context(client)

        yield begin


@pytest.fixture
def client(start: Start) -> TestClient:
    """A service on loopback that asks for no token."""
    return start()


@pytest.fixture
def record(cudaforge_home: Path) -> Iterator[SqliteStore]:
    """The same record, as another process has it."""
    store = SqliteStore(cudaforge_home)
    yield store
    store.close()


@pytest.fixture
def token(record: SqliteStore) -> Callable[[str], dict[str, str]]:
    """Headers with a token of this scope."""

    def make(scope: str, name: str = "") -> dict[str, str]:
        _, secret = record.tokens.create(name or scope, Scope(scope))
        return {"Authorization": f"Bearer {secret}"}

    return make


def new_run(**changes: Any) -> dict[str, Any]:
    """A run that the service takes."""
    return {
        "task": {"name": "add-one", "source": TASK_SOURCE},
        "language": "cpp",
        "coder": "manual:",
        "budget": {"rounds": 2},
        **changes,
    }
