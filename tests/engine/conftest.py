"""One supervisor for all tests of the engine: its reference processes and ceilings are worth keeping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cudaforge.engine.supervisor import Supervisor


@pytest.fixture(scope="session")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """A supervisor of this machine's CPU."""
    made = Supervisor(Path(tmp_path_factory.mktemp("engine-home")), "cpu")
    yield made
    made.close()
