"""`view` and `show --html`: the pages of a run, served or in a file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.recorded_home import PASSED, runs_by_task, unpack

from cudaforge.store.sqlite import SqliteStore


def run_in(home: Path, task: str) -> str:
    store = SqliteStore(home)
    try:
        return runs_by_task(store)[task]
    finally:
        store.close()


def test_view_serves_the_page_of_a_run_until_it_is_interrupted(tmp_path: Path) -> None:
    home = unpack(tmp_path)
    run = run_in(home, PASSED)
    command = [sys.executable, "-m", "cudaforge", "view", run[:6], "--no-browser", "--json", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            assert said["url"].endswith(f"/runs/{run}") and said["home"] == str(home)
            with urllib.request.urlopen(said["url"], timeout=30) as answer:
                assert answer.status == 200 and PASSED in answer.read().decode()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert "Traceback" not in errors and process.returncode in (0, 130), errors


def test_view_of_a_run_that_is_not_there_is_a_mistake(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("view", "nothing", "--no-browser", "--home", tmp_path)
    assert done.exit_code == 2 and "no run 'nothing'" in done.output


def test_show_writes_a_run_as_one_file(cli: Callable[..., Any], tmp_path: Path) -> None:
    home = unpack(tmp_path)
    run = run_in(home, PASSED)
    file = tmp_path / "run.html"
    done = cli("show", run, "--html", file, "--json", "--home", home)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"run": run, "file": str(file), "bytes": file.stat().st_size}
    assert file.read_text().startswith("<!doctype html>")
    assert cli("show", run, "--html", tmp_path / "no" / "folder.html", "--home", home).exit_code == 3
