"""The lease of a device: one holder on the whole machine, whoever and wherever it is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cudaforge.engine.lease import lease
from cudaforge.errors import EvaluatorError

HOLD = """
import sys, time
from pathlib import Path
from cudaforge.engine.lease import lease
with lease(sys.argv[1], folder=Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdout = None
    time.sleep(float(sys.argv[3]))
"""


def hold(device: str, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the device for so long, or until it is killed."""
    command = [sys.executable, "-c", HOLD, device, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def test_who_comes_second_waits_and_is_told_so_once(tmp_path: Path) -> None:
    other = hold("GPU-1", tmp_path, 0.5)
    told: list[float] = []
    with lease("GPU-1", lambda: told.append(time.monotonic()), tmp_path) as waited:
        assert waited > 0.05 and len(told) == 1
    assert other.wait(10) == 0
    with lease("GPU-1", lambda: told.append(0.0), tmp_path) as waited:
        assert waited < 5 and len(told) == 1


def test_devices_have_leases_of_their_own(tmp_path: Path) -> None:
    with lease("GPU-1", folder=tmp_path), lease("GPU-2", folder=tmp_path):
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["GPU-1-next.lock", "GPU-1.lock", "GPU-2-next.lock", "GPU-2.lock"]


def test_who_has_had_it_comes_after_who_waits(tmp_path: Path) -> None:
    with lease("GPU-1", folder=tmp_path):
        command = [sys.executable, "-c", HOLD, "GPU-1", str(tmp_path), "0.3"]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)  # it has started and waits
    with lease("GPU-1", folder=tmp_path):  # asked for at once, and yet the other one was first
        assert other.wait(10) == 0
    assert other.stdout is not None
    other.stdout.close()


def test_a_holder_that_dies_holds_no_longer(tmp_path: Path) -> None:
    other = hold("cpu", tmp_path, 60)
    other.kill()
    other.wait(10)
    with lease("cpu", pytest.fail, tmp_path):
        pass


def test_every_user_may_open_the_file_and_no_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "leases"
    with lease("cpu", folder=folder):
        assert folder.stat().st_mode & 0o7777 == 0o1777
        assert (folder / "cpu.lock").stat().st_mode & 0o777 == 0o666
    (folder / "GPU-3.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvaluatorError, match="cannot be opened"), lease("GPU-3", folder=folder):
        pass
    assert not (tmp_path / "elsewhere").exists()
