"""What is made of what compute-sanitizer prints."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cudaforge.engine import sanitizer

MEMCHECK = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at scale_add_kernel(const float *, float *, long)+0x230 in kernel.cu:12
=========     Address 0x7f2c1a006400 is out of bounds
========= ERROR SUMMARY: 1 error
"""
RACE = """========= Warning: Race reported between Write access at scale_add_kernel(float *)+0xa0 in kernel.cu:10
=========     and Read access at scale_add_kernel(float *)+0xd0 in kernel.cu:11 [256 hazards]
========= RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)
"""
CLEAN = {"memcheck": "========= ERROR SUMMARY: 0 errors\n", "racecheck": "========= RACECHECK SUMMARY: 0 hazards\n"}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """What each tool prints and why it says nothing; nothing is started."""
    runs = {name: (log, "") for name, log in CLEAN.items()}
    monkeypatch.setattr(sanitizer.shutil, "which", lambda name: f"/opt/{name}")
    monkeypatch.setattr(sanitizer, "_one", lambda _k, _b, _r, _t, command: runs[command[2]])
    return runs


def found(timeout_s: float = 60.0) -> sanitizer.Findings:
    nobody: Any = None
    return sanitizer.run(nobody, nobody, nobody, timeout_s)


def test_a_clean_kernel_has_no_notes(said: dict[str, tuple[str, str]]) -> None:
    assert found() == sanitizer.Findings()


def test_a_memory_error_is_a_failure_with_its_line(said: dict[str, tuple[str, str]]) -> None:
    said["memcheck"] = (MEMCHECK, "")
    seen = found()
    assert seen.error == "memcheck: Invalid __global__ write of size 4 bytes"
    assert (seen.file, seen.line, seen.log) == ("kernel.cu", 12, MEMCHECK)


def test_a_race_is_a_note(said: dict[str, tuple[str, str]]) -> None:
    said["racecheck"] = (RACE, "")
    (note,) = found().notes
    assert not found().error
    assert note.startswith("racecheck: Warning: Race reported") and "at kernel.cu:10" in note and "(2 in all)" in note


def test_a_tool_that_says_nothing_is_no_verdict(said: dict[str, tuple[str, str]]) -> None:
    said["memcheck"] = ("", "could not be run (no room)")
    said["racecheck"] = ("something else", "")
    assert not found().error
    assert found().notes == (
        "memcheck: could not be run (no room), so nothing is known",
        "racecheck: gave no summary, so nothing is known",
    )


def test_the_tools_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch, said: dict[str, tuple[str, str]]) -> None:
    everybody = threading.Barrier(2, timeout=20)

    def one(_k: Any, _b: Any, _r: Any, _t: float, command: tuple[str, ...]) -> sanitizer.Run:
        everybody.wait()
        return said[command[2]]

    monkeypatch.setattr(sanitizer, "_one", one)
    assert found() == sanitizer.Findings()
