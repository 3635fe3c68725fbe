"""The live display: on a terminal a table that moves, at 80 columns, and a replay that shows the same."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.scripted import ScriptedEvaluator, diagnosis_reply, kernel_reply, plan_reply
from support.spool_server import serving

from cudaforge import wiring
from cudaforge.errors import ExitCode
from cudaforge.evaluation import EvaluateRequest, Evaluation
from cudaforge.follow import RunView


class Unhurried(ScriptedEvaluator):
    """Takes long enough to be seen at four frames a second."""

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        await asyncio.sleep(0.6)
        return await super().evaluate(request)


def test_a_terminal_shows_the_rounds_while_they_go_and_then_the_result(
    task_file: Path, recording: Callable[..., str], tmp_path: Path, cli: Callable[..., Any], cudaforge_home: Path
) -> None:
    coder = [kernel_reply("INCORRECT"), kernel_reply("time_us=80"), kernel_reply("time_us=40")]
    model = recording(coder, [diagnosis_reply(), plan_reply()])
    spool = tmp_path / "spool"
    arguments = ["optimize", str(task_file), "--coder", model, "--evaluator", f"spool:{spool}", "--language", "module"]
    with serving(spool, Unhurried()):
        code, text = _on_a_terminal(*arguments, "--rounds", "3")

    assert code == ExitCode.OK, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    frames, result = plain.rsplit("run        r", 1)
    assert re.search(r"round 1: (building, checking, timing|the Coder writes|the Judge reads)", frames)
    assert "best so far: round 2, 2.50x over eager" in frames
    assert re.search(r"2★ +revise ✓ PASSED +40 µs +2\.50x", result)
    assert "2.50x [2.45, 2.55] over eager PyTorch" in result

    store = wiring.open_store(cudaforge_home)
    try:
        run = wiring.find_run(store, "last")
        whole, step = RunView(store, run), RunView(store, run)
        events = whole.catch_up()
        assert whole.catch_up() == []
        for stored in events:  # taken in one by one, as while it ran
            step._take(stored)
        assert (step.attempts, step.best, step.notes) == (whole.attempts, whole.best, whole.notes)
        assert whole.best == f"{run.id}.2" and whole.stage == ""
    finally:
        store.close()


def _on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Runs the command on a pseudo-terminal of 80 columns; its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    code = "import sys; from cudaforge.cli import main; main()"
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return process.wait(timeout=30), written.decode("utf-8", "replace")
