"""`evaluate` and `profile`: one kernel; verdicts come from the scripted evaluator behind a spool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.spool_server import serving

from cudaforge.errors import ExitCode
from cudaforge.evaluation import Evaluation, Verdict
from cudaforge.shapes import ProfileOutput


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a one-file kernel that does what it says."""

    def write(what: str) -> Path:
        path = tmp_path / "kernel.py"
        path.write_text(f"class ModelNew:\n    pass  # {what}\n")
        return path

    return write


def test_a_passing_kernel_gives_0_and_every_documented_key(
    cli_json: Callable[..., Any], task_file: Path, kernel: Callable[[str], Path], spool: str
) -> None:
    raw = cli_json("evaluate", task_file, kernel("time_us=50"), "--evaluator", spool)

    evaluation = Evaluation.model_validate_json(json.dumps(raw))
    assert evaluation.passed and evaluation.time_us == 50
    keys = "verdict reason rule kernel speedup time_us correctness diagnostics stages_s isolation device"
    assert set(keys.split()) <= set(raw)
    assert set(raw["speedup"]["eager"]) == {"value", "low", "high"} and "compile" in raw["speedup"]
    assert raw["kernel"].startswith("k")


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.PASSED])
def test_any_other_verdict_gives_1_and_a_failure_of_ours_3(
    cli: Callable[..., Any], task_file: Path, kernel: Callable[[str], Path], spool: str, verdict: Verdict
) -> None:
    result = cli("evaluate", task_file, kernel(verdict.value), "--evaluator", spool)

    expected = ExitCode.INFRASTRUCTURE if verdict is Verdict.INFRASTRUCTURE else ExitCode.NEGATIVE
    assert result.exit_code == expected
    assert verdict.value in result.stdout and f"It is {verdict.value}." in result.stdout


def test_the_format_overrides_the_guess(
    cli: Callable[..., Any], cli_json: Callable[..., Any], task_file: Path, kernel: Callable[[str], Path], spool: str
) -> None:
    path = kernel("time_us=50")
    guessed = cli_json("evaluate", task_file, path, "--evaluator", spool)
    chosen = cli_json("evaluate", task_file, path, "--format", "triton", "--evaluator", spool)
    assert guessed["kernel"] != chosen["kernel"]
    missing = cli("evaluate", task_file, path, "--format", "cpp", "--evaluator", spool)
    assert missing.exit_code == ExitCode.USAGE and "kernel.cpp" in missing.stderr


@pytest.mark.parametrize(
    ("task", "kernel_path", "message"),
    [
        ("add-one.py", "missing", "does not exist"),
        ("add-one.py", "empty", "holds no kernel.cu, kernel.cpp or model.py"),
        ("add-one.py", "half", "has the files ['kernel.cpp', 'model.py'], not ['kernel.cpp']"),
        ("add-one.py", "notes.txt", "neither a folder of sources nor a .py file"),
        ("missing.py", "k.py", "missing.py: cannot be read"),
        ("k.py", "k.py", "k.py:1: is not a task, it lacks: class Model(nn.Module)"),
    ],
)
def test_input_that_is_not_usable_gives_2(
    cli: Callable[..., Any], task_file: Path, tmp_path: Path, task: str, kernel_path: str, message: str
) -> None:
    for folder in ("empty", "half"):
        (tmp_path / folder).mkdir()
    (tmp_path / "half" / "kernel.cpp").write_text("int x;")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "k.py").write_text("class ModelNew: ...")
    result = cli("evaluate", task_file.with_name(task), tmp_path / kernel_path, "--evaluator", f"spool:{tmp_path}/idle")
    assert result.exit_code == ExitCode.USAGE and message in result.stderr


def test_a_spool_without_evaluator_keeps_the_request_for_later(
    cli: Callable[..., Any],
    cli_json: Callable[..., Any],
    task_file: Path,
    kernel: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    arguments = ["evaluate", task_file, kernel("time_us=50"), "--evaluator", f"spool:{tmp_path / 'idle'}"]
    waiting = cli(*arguments)
    assert waiting.exit_code == ExitCode.SUSPENDED
    key = waiting.stderr.split("--key ")[1].split(".")[0].strip()
    with serving(tmp_path / "idle"):
        assert cli_json(*arguments, "--key", key)["verdict"] == "PASSED"
    assert cli_json(*arguments, "--key", key)["verdict"] == "PASSED"  # it was measured once, and stays


def test_profile_evaluates_first_and_profiles_what_passes(
    cli: Callable[..., Any], cli_json: Callable[..., Any], task_file: Path, kernel: Callable[[str], Path], spool: str
) -> None:
    raw = cli_json("profile", task_file, kernel("time_us=50"), "--metrics", "paper", "--evaluator", spool)
    found = ProfileOutput.model_validate_json(json.dumps(raw))
    assert found.profile and found.profile.metric_set == "paper" and found.profile.unavailable

    text = cli("profile", task_file, kernel("time_us=50"), "--evaluator", spool).stdout
    assert "50 µs a call; 2.00x [1.96, 2.04] over eager" in text and "no hardware counters: no ncu" in text
    failed = cli_json("profile", task_file, kernel("INCORRECT"), "--evaluator", spool, exit_code=ExitCode.NEGATIVE)
    assert failed["profile"] is None and failed["evaluation"]["verdict"] == "INCORRECT"
