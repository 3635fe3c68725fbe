"""Rules for all tests: what `gpu` needs, a home of its own for each test, and no network.

Pytest imports this file first, so it imports nothing heavy: torch alone takes seconds.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# As in an activated environment: torch's load_inline looks for ninja on the PATH.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _gpu_missing() -> str:
    """Why tests marked `gpu` cannot run here; empty where they can."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return "no NVIDIA GPU"
    if not (os.environ.get("CUDACXX") or shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
        return "no nvcc"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips `gpu` tests where there is no GPU or no nvcc: the only rule, so that no test has one of its own."""
    reason = _gpu_missing()
    if not reason:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def cudaforge_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CUDAFORGE_HOME that no other test sees and that is not the user's; it does not exist yet."""
    home = tmp_path / "cudaforge-home"
    monkeypatch.setenv("CUDAFORGE_HOME", str(home))
    return home


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a command in an empty folder; what it returns has exit_code, stdout and stderr."""
    from typer.testing import CliRunner, Result

    from cudaforge.cli.app import app

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        assert "Traceback" not in result.output
        return result

    return invoke


def _is_local(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: a connection or a name lookup that leaves this machine is an error of the test."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise RuntimeError(f"A test tried to connect to {address[0]}: tests use loopback only.")
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0]):
        raise RuntimeError(f"A test looked up {arguments[0]!r}: tests use loopback only.")


sys.addaudithook(_refuse_network)
