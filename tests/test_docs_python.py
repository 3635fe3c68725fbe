"""docs/python.md speaks of every public name, of every public method of its classes, and of nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import cudaforge as cf

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text()
SECTIONS = dict(re.findall(r"^### `cf\.(\w+)`\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))
WITH_PARAMETERS = ["optimize", "evaluate", "profile", "runs", "load_run", "Session"]
"""The async twins have the same; tests/test_python.py compares."""
SET_BY_INIT = {"RunResult": {"id", "home"}, "UsableKernel": {"kernel", "task", "verified"}, "Session": {"id"}}


def members(name: str) -> dict[str, Any]:
    """Public methods and properties."""
    return {n: m for n, m in vars(getattr(cf, name)).items() if not n.startswith("_")}


def test_every_exported_name_has_a_section() -> None:
    assert set(SECTIONS) == set(cf.__all__)


@pytest.mark.parametrize("name", SET_BY_INIT)
def test_every_public_method_has_its_line(name: str) -> None:
    assert set(re.findall(r"^\| `\.(\w+)", SECTIONS[name], re.MULTILINE)) == set(members(name)) | SET_BY_INIT[name]


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_every_parameter_is_named_with_its_default(name: str) -> None:
    section = " ".join(SECTIONS[name].split())
    for parameter in inspect.signature(getattr(cf, name)).parameters.values():
        default = parameter.default
        written = "" if default is parameter.empty else f"={default}"
        shown = parameter.name + (written if not isinstance(default, str) else f'="{default}"')
        assert re.search(rf"[(\s*]{re.escape(shown)}[,)]", section), shown


def test_the_pages_code_is_python_and_uses_what_there_is() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    used: dict[str, set[str]] = {"cf": set(), "session": set(), "result": set()}
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in used:
            used[node.value.id].add(node.attr)
    assert used["cf"] <= set(cf.__all__) and len(used["cf"]) >= 3
    assert used["session"] <= set(members("Session")) and len(used["session"]) >= 8
    assert used["result"] <= set(members("RunResult")) and len(used["result"]) >= 4
    (task,) = [block for block in blocks if "def get_inputs" in block]
    assert cf.Task.parse(task).meta.dtype is None


def test_every_public_name_and_method_has_a_docstring() -> None:
    silent = [name for name in cf.__all__ if name != "__version__" and not inspect.getdoc(getattr(cf, name))]
    for name in SET_BY_INIT:
        silent += [f"{name}.{n}" for n, member in members(name).items() if not inspect.getdoc(member)]
    assert not silent
