"""The command as a whole: fast, no traceback, and documented to the last option, exit code and JSON field."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from cudaforge import __version__, shapes
from cudaforge.cli.app import EXIT_CODES, app
from cudaforge.errors import ExitCode
from cudaforge.evaluation import Evaluation

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ISSUED = (
    "optimize demo resume pending reply show runs evaluate profile evaluator pack gc doctor selftest "
    "serve worker token view"  # as promised
)
EVERYWHERE = {"--json", "--home", "--help"}


def section(command: str) -> str:
    found = re.search(rf"^## cudaforge {command}\b.*?(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section for {command}"
    return found[0]


def test_the_promised_commands_are_there() -> None:
    assert set(COMMANDS) == set(ISSUED.split())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_option_and_argument_is_documented(command: str) -> None:
    text = section(command)
    leaves = getattr(COMMANDS[command], "commands", {command: COMMANDS[command]}).values()
    for parameter in (parameter for leaf in leaves for parameter in leaf.params):
        if parameter.param_type_name == "argument":
            assert str(parameter.metavar).strip("[]") in text
            continue
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert option in EVERYWHERE or f"`{option}" in text, option
    assert all({"--json", "--home"} <= {o for p in leaf.params for o in p.opts} for leaf in leaves)


def test_every_exit_code_is_documented_and_in_the_help(cli: Callable[..., Any]) -> None:
    for code in ExitCode:
        assert f"| {int(code)} | {code.name} |" in DOCUMENT
        assert re.search(rf"\b{int(code)} ", EXIT_CODES)
    assert "Exit codes" in cli("--help").stdout


def test_every_documented_json_is_of_its_shape_and_every_shape_is_documented() -> None:
    blocks = re.findall(r"<!-- (\w+) -->\n```json\n(.*?)\n```", DOCUMENT, re.DOTALL)
    models: dict[str, type[BaseModel]] = {n: v for n, v in vars(shapes).items() if n.endswith("Output")}
    parts = {"BaselineOutput", "AttemptOutput", "BestOutput", "CallOutput"}  # shown inside others
    assert {name for name, _ in blocks} == {"Evaluation", *models} - parts
    for name, block in blocks:
        model = models.get(name, Evaluation)
        model.model_validate_json(block)
        assert set(json.loads(block)) == set(model.model_fields), name  # all fields are shown


def test_help_is_fast_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['cudaforge', '--help']\n"
        "from cudaforge.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'langgraph', 'openai', 'sqlmodel', 'pydantic', 'pandas'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)\n"
    )
    best = 9.9
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        best = min(best, time.perf_counter() - began)
        assert done.stderr.strip() == "[]"
    assert best < 1.0  # about 0.25 s on a quiet machine


def test_the_version_is_printed(cli: Callable[..., Any]) -> None:
    assert cli("--version").stdout.strip() == f"cudaforge {__version__}"


def test_no_command_and_unknown_options_are_usage_errors(cli: Callable[..., Any]) -> None:
    assert cli().exit_code == ExitCode.USAGE
    assert cli("fly").exit_code == ExitCode.USAGE
    assert cli("show", "last", "--loudly").exit_code == ExitCode.USAGE


def test_a_home_that_cannot_be_made_is_one_sentence(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("runs", "--home", tmp_path / "file" / "home")
    assert result.exit_code == ExitCode.INFRASTRUCTURE
    assert result.stderr.startswith("Error: ") and "Hint: " in result.stderr


def test_a_damaged_database_is_one_sentence_and_debug_shows_where(
    cli: Callable[..., Any], cudaforge_home: Path
) -> None:
    cudaforge_home.mkdir()
    (cudaforge_home / "cudaforge.db").write_bytes(b"not a database" * 100)
    result = cli("runs")
    assert result.exit_code == ExitCode.INFRASTRUCTURE and result.stderr.startswith("Error: ")

    code = "from cudaforge.cli import main; import sys; sys.argv = ['cudaforge', 'runs']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDAFORGE_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" in done.stderr
