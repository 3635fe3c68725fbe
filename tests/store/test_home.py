from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cudaforge.store.home import Home, home_dir


def test_the_environment_names_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDAFORGE_HOME", str(tmp_path / "x"))
    assert home_dir() == tmp_path / "x"
    assert not home_dir().exists()


def test_a_relative_home_and_a_tilde_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDAFORGE_HOME", "here")
    assert home_dir() == tmp_path / "here"
    monkeypatch.setenv("CUDAFORGE_HOME", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_dir() == tmp_path / "there"


@pytest.mark.parametrize("value", ["", "  "])
def test_without_a_choice_it_is_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CUDAFORGE_HOME", value)
    assert home_dir() == tmp_path / ".cudaforge"


def test_all_lies_inside_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for path in (home.database, home.checkpoints, home.artifacts, home.build_cache, home.backups, home.lock):
        assert path.is_relative_to(tmp_path)


def test_importing_it_is_light() -> None:
    code = "import cudaforge.store.home, sys; assert not {'sqlmodel', 'sqlalchemy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
