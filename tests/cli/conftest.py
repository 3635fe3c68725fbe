"""The command in this process, recordings made for a test, and a spool behind which a scripted evaluator answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scripted import TASK_SOURCE
from support.spool_server import serving
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def cli_json(cli: Cli) -> Callable[..., Any]:
    """The same with --json: the parsed stdout. `exit_code` is what is expected."""

    def invoke(*arguments: object, exit_code: int = 0, stdin: str | None = None) -> Any:
        result = cli(*arguments, "--json", stdin=stdin)
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return invoke


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task that the scripted evaluator takes."""
    path = tmp_path / "add-one.py"
    path.write_text(TASK_SOURCE)
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., str]:
    """Writes a recording of these replies and returns its model name."""

    def write(coder: Sequence[str], judge: Sequence[str] = (), name: str = "recording") -> str:
        folder = tmp_path / name
        folder.mkdir()
        meta = 'title = "t"\nmade_by = "a test"\nnote = "Made up."\nlanguage = "module"\n'
        (folder / "recording.toml").write_text(meta)
        for role, replies in (("coder", coder), ("judge", judge)):
            for position, reply in enumerate(replies):
                (folder / f"{role}-{position:02d}.md").write_text(reply)
        return f"recorded:{folder}"

    return write


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[str]:
    """`spool:DIR` with a scripted evaluator that serves it."""
    directory = tmp_path / "spool"
    with serving(directory):
        yield f"spool:{directory}"
