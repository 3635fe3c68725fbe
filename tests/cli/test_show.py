"""`show` and `runs`, over a run with every kind of round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripted import UNREADABLE, diagnosis_reply, kernel_reply, plan_reply

from cudaforge.errors import ExitCode
from cudaforge.shapes import RoundOutput, RunOutput, RunsOutput


@pytest.fixture
def run_id(cli_json: Callable[..., Any], task_file: Path, recording: Callable[..., str], spool: str) -> str:
    """A finished run: a build failure, a pass, a reply that nobody can read, a faster one."""
    coder = [
        kernel_reply("BUILD_FAILED"),
        kernel_reply("time_us=80"),
        UNREADABLE,
        UNREADABLE,
        kernel_reply("time_us=40 \x1b[31mred"),
    ]
    model = recording(coder, [diagnosis_reply(), plan_reply(), plan_reply(2.0)])
    arguments = ["optimize", task_file, "--coder", model, "--language", "module", "--evaluator", spool]
    return str(cli_json(*arguments, "--rounds", 4)["id"])


def test_the_whole_run_is_shown(cli: Callable[..., Any], cli_json: Callable[..., Any], run_id: str) -> None:
    text = cli("show", run_id).stdout
    for expected in (
        "✗ BUILD_FAILED",
        "✗ no kernel",
        "✓ PASSED",
        "diagnosis: off by one",
        "plan: fuse the loops",
        "evidence: time_us = 80",
        "gain over its base: 2.00x (predicted 2.00x)",
        "no hardware counters: no ncu",
        "correct on 5 of 5 trials",
        "2.50x [2.45, 2.55] over eager PyTorch",
        "stages:",
    ):
        assert expected in text, expected

    run = RunOutput.model_validate(cli_json("show", "last"))
    assert [a.round for a in run.attempts] == [0, 1, 2, 3]
    assert [a.verdict for a in run.attempts] == ["BUILD_FAILED", "PASSED", None, "PASSED"]
    assert run.attempts[2].reply_error and run.attempts[3].plan and run.attempts[3].speedup
    assert run.best and run.best.round == 3 and run.tokens.input == 0 and run.cost_usd == 0
    assert {"baseline", "coder", "judge", "evaluate", "profile", "verify"} <= set(run.stages_s)
    assert run.calls is None and run.kernel_folder is None


def test_a_round_is_shown_with_the_diff_against_its_base(
    cli: Callable[..., Any], cli_json: Callable[..., Any], run_id: str
) -> None:
    text = cli("show", run_id, "--round", 3).stdout
    assert "-    pass  # time_us=80" in text and "+    pass  # time_us=40 red" in text
    assert "\x1b[31m" not in text  # what a model wrote cannot drive the terminal

    detail = RoundOutput.model_validate(cli_json("show", run_id, "--round", 3))
    assert detail.attempt.base == f"{run_id}.1" and "+    pass  # time_us=40" in detail.diff
    assert detail.evaluation and detail.evaluation.passed and "model.py" in detail.files
    draft = RoundOutput.model_validate(cli_json("show", run_id, "--round", 0))
    assert draft.diff == "" and "class ModelNew" in cli("show", run_id, "--round", 0).stdout


def test_prompts_and_replies_are_shown_exactly(
    cli: Callable[..., Any], cli_json: Callable[..., Any], run_id: str
) -> None:
    run = RunOutput.model_validate(cli_json("show", run_id, "--prompts"))
    assert run.calls and [c.role for c in run.calls][:3] == ["coder", "judge", "coder"]
    assert run.calls[0].reply == kernel_reply("BUILD_FAILED")
    assert [c.purpose for c in run.calls].count("reask") == 1
    text = cli("show", run_id, "--prompts", "--round", 2).stdout
    assert UNREADABLE in text and "---- reply ----" in text


def test_runs_are_listed(cli: Callable[..., Any], cli_json: Callable[..., Any], run_id: str) -> None:
    (row,) = RunsOutput.model_validate(cli_json("runs")).runs
    assert (row.id, row.state, row.rounds, row.win) == (run_id, "done", 4, True)
    assert run_id in cli("runs").stdout and "2.50x" in cli("runs").stdout


def test_what_is_not_there_is_a_usage_error(cli: Callable[..., Any]) -> None:
    assert "There is no run yet" in cli("runs").stdout
    for arguments in (["show", "last"], ["show", "rxyz"], ["resume", "rxyz"]):
        result = cli(*arguments)
        assert result.exit_code == ExitCode.USAGE and result.stderr.startswith("Error: There is no run")


def test_a_round_that_is_not_there_is_a_usage_error(cli: Callable[..., Any], run_id: str) -> None:
    result = cli("show", run_id, "--round", 9)
    assert result.exit_code == ExitCode.USAGE and "has no round 9, it has 0 to 3" in result.stderr
