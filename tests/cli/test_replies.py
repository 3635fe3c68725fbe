"""`pending`, `reply`, `resume`: somebody plays a `manual:` model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripted import kernel_reply, plan_reply

from cudaforge.errors import ExitCode
from cudaforge.shapes import PendingOutput, ReplyOutput


@pytest.fixture
def manual_run(cli_json: Callable[..., Any], task_file: Path, spool: str) -> str:
    """The id of a run that waits for its Coder."""
    arguments = ["optimize", task_file, "--coder", "manual:", "--language", "module", "--evaluator", spool]
    run = cli_json(*arguments, "--rounds", 2, exit_code=ExitCode.SUSPENDED)
    return str(run["id"])


def test_a_run_is_played_by_hand_to_its_end(
    cli: Callable[..., Any], cli_json: Callable[..., Any], manual_run: str, tmp_path: Path
) -> None:
    (item,) = PendingOutput.model_validate(cli_json("pending")).pending
    assert (item.run, item.kind, item.role, item.purpose) == (manual_run, "reply", "coder", "draft")
    assert any("class Model(nn.Module)" in message.content for message in item.messages)
    shown = cli("pending", manual_run)
    assert "---- user ----" in shown.stdout and "class Model(nn.Module)" in shown.stdout
    assert f"cudaforge reply {manual_run} --file reply.md" in shown.stderr
    assert manual_run in cli("pending").stdout

    reply = tmp_path / "reply.md"
    reply.write_text(kernel_reply("time_us=80"))
    stored = ReplyOutput.model_validate(cli_json("reply", "last", "--file", reply))
    assert (stored.run, stored.role, stored.characters) == (manual_run, "coder", len(reply.read_text()))
    assert cli_json("pending")["pending"] == []
    again = cli("reply", manual_run, "--file", reply)
    assert again.exit_code == ExitCode.USAGE and "has its reply already" in again.stderr

    assert cli_json("resume", manual_run, exit_code=ExitCode.SUSPENDED)["waiting_for"].endswith("judge/0")
    assert cli("reply", manual_run, "--file", "-", stdin=plan_reply()).exit_code == ExitCode.OK
    assert cli("resume", manual_run).exit_code == ExitCode.SUSPENDED
    assert cli("reply", manual_run, "--file", "-", stdin=kernel_reply("time_us=25")).exit_code == ExitCode.OK
    run = cli_json("resume", manual_run)
    assert run["speedup"]["eager"]["value"] == 4.0 and run["cost_usd"] == 0


def test_a_reply_that_nobody_waits_for_is_refused(cli: Callable[..., Any], manual_run: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").write_text(" \n")
    for run, file, message in (
        ("rnothing", "-", "There is no run"),
        (manual_run, tmp_path / "missing", "cannot be read"),
        (manual_run, tmp_path / "binary", "not UTF-8"),
        (manual_run, tmp_path / "empty", "The reply is empty"),
    ):
        result = cli("reply", run, "--file", file, stdin="x")
        assert result.exit_code == ExitCode.USAGE and message in result.stderr


def test_nothing_pending_is_said(cli: Callable[..., Any]) -> None:
    assert "Nothing is pending" in cli("pending").stdout
