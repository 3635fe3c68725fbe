"""An evaluator host has what requirements-evaluator.txt lists and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
NOT_THERE = {"alembic", "fastapi", "jinja2", "langgraph", "openai", "pandas", "sqlalchemy", "sqlmodel"}
COMMAND_ONLY = {"rich", "typer"}

# Runs in a fresh interpreter: hides modules as if their packages were not installed, then imports what it is told.
HOST = """
import importlib, json, sys
class Absent:
    def __init__(self, names): self.names = set(names)
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} on an evaluator host", name=name)
hidden, modules = json.load(sys.stdin)
sys.meta_path.insert(0, Absent(hidden))
before = set(sys.modules)
for module in modules:
    importlib.import_module(module)
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before} & set(hidden))))
"""


def listed() -> dict[str, Requirement]:
    """requirements-evaluator.txt by name."""
    lines = (ROOT / "requirements-evaluator.txt").read_text().splitlines()
    return {r.name: r for r in (Requirement(line) for line in lines if line.strip() and not line.startswith("#"))}


def hidden_modules(names: set[str]) -> list[str]:
    """Top-level modules of every installed distribution that `names` do not bring along."""
    present: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonical(waiting.pop())
        if name in present:
            continue
        present.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    present.add("cudaforge")
    return sorted(
        module for module, owners in packages_distributions().items() if not {canonical(o) for o in owners} & present
    )


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def import_on_host(modules: list[str], names: set[str]) -> None:
    """Imports `modules` in an interpreter where only `names` and what they need are installed."""
    hidden = [*hidden_modules(names), "jinja2"]  # torch brings jinja2 along; ours must not need it
    installed = {module for module in NOT_THERE if importlib.util.find_spec(module)}
    assert set(hidden) >= installed >= NOT_THERE - {"fastapi"}, "the test hides nothing"  # fastapi is an extra
    found = subprocess.run(
        [sys.executable, "-c", HOST],
        input=json.dumps([hidden, modules]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert json.loads(found.stdout) == []


def test_requirements_are_those_of_the_project_and_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {r.name: str(r) for r in map(Requirement, project)}
    assert {name: str(requirement) for name, requirement in listed().items()} == {n: bounds[n] for n in listed()}
    assert not set(listed()) & NOT_THERE


def test_spool_server_imports_without_torch() -> None:
    """A login node without torch may look after a spool, and `--help` is quick."""
    import_on_host(["cudaforge.engine.spool"], {"pydantic"})


def test_engine_imports_on_an_evaluator_host() -> None:
    modules = [f"cudaforge.engine.{path.stem}" for path in sorted((ROOT / "cudaforge" / "engine").glob("[a-z]*.py"))]
    assert "cudaforge.engine.spool" in modules
    import_on_host(modules, set(listed()) - COMMAND_ONLY)


def test_evaluator_command_imports_on_an_evaluator_host() -> None:
    import_on_host(["cudaforge.cli.app", "cudaforge.wiring", "cudaforge.store.home"], set(listed()))


def test_spool_module_serves_an_empty_spool_with_this_machines_evaluator(tmp_path: Path) -> None:
    folders = ["--spool", tmp_path / "spool", "--home", tmp_path / "home"]
    command = [sys.executable, "-m", "cudaforge.engine.spool", *folders, "--drain", "--device", "cpu"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert "serves" in found.stdout
    assert (tmp_path / "spool" / "requests").is_dir()


def test_spool_module_says_in_a_sentence_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "cudaforge.engine.spool", "--spool", tmp_path / "file", "--drain"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 3
    assert found.stderr.count("\n") == 1
    assert "cannot be used" in found.stderr
