"""`optimize`, `demo`, `resume`: what they print, write and return."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripted import diagnosis_reply, kernel_reply, plan_reply
from support.spool_server import serving

from cudaforge import wiring
from cudaforge.errors import ExitCode
from cudaforge.shapes import ErrorOutput, RunOutput
from cudaforge.trace import RunState

CODER = [kernel_reply("INCORRECT"), kernel_reply("time_us=80"), kernel_reply("time_us=40")]
JUDGE = [diagnosis_reply(), plan_reply()]


@pytest.fixture
def optimize(task_file: Path, recording: Callable[..., str], spool: str) -> Callable[..., list[object]]:
    """The arguments of a scripted `optimize`."""

    def arguments(*more: object, coder: list[str] = CODER, judge: list[str] = JUDGE) -> list[object]:
        model = recording(coder, judge)
        fixed = ["--coder", model, "--evaluator", spool, "--language", "module", "--rounds", len(coder)]
        return ["optimize", task_file, *fixed, *more]

    return arguments


def test_a_win_is_told_with_its_interval_its_import_line_and_where_the_trace_is(
    cli: Callable[..., Any], optimize: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = cli(*optimize())

    assert result.exit_code == ExitCode.OK, result.output
    assert "2.50x [2.45, 2.55] over eager PyTorch" in result.stdout
    assert re.search(r"≠ INCORRECT.*off by one|≠ INCORRECT", result.stdout)
    assert re.search(r"trace: cudaforge show r[0-9a-z]{10}", result.stdout)
    line = re.search(r"from (cudaforge_kernels\.add_one_k[0-9a-f]{16}) import ModelNew", result.stdout)
    assert line, result.stdout
    monkeypatch.syspath_prepend(str(Path.cwd()))
    module = importlib.import_module(line[1])
    try:
        assert "time_us=40" in Path(str(module.__file__)).with_name("model.py").read_text()
        assert module.ModelNew.__name__ == "ModelNew"
    finally:
        for name in [n for n in sys.modules if n.startswith("cudaforge_kernels")]:
            del sys.modules[name]


def test_json_has_the_documented_shape_and_progress_stays_on_stderr(
    cli: Callable[..., Any], optimize: Callable[..., list[object]], tmp_path: Path
) -> None:
    result = cli(*optimize("--output", tmp_path / "kernel_x", "--json"))

    assert result.exit_code == ExitCode.OK, result.output
    run = RunOutput.model_validate_json(result.stdout)
    assert run.state == "done" and run.win and run.speedup and run.speedup.eager.value == 2.5
    assert [a.verdict for a in run.attempts] == ["INCORRECT", "PASSED", "PASSED"]
    assert run.attempts[1].diagnosis and run.attempts[2].plan
    assert run.best and run.best.verified and run.best.round == 2
    assert run.cost_usd == 0 and run.baseline and run.baseline.eager_us == 100
    assert run.kernel_folder == str(tmp_path / "kernel_x")
    assert (tmp_path / "kernel_x" / "model.py").is_file()
    assert "round 2: revise: PASSED 40 µs, 2.50x over eager" in result.stderr


def test_no_win_is_said_plainly_and_has_its_own_exit_code(
    cli: Callable[..., Any], optimize: Callable[..., list[object]]
) -> None:
    result = cli(*optimize(coder=[kernel_reply("time_us=120")]))

    assert result.exit_code == ExitCode.NO_WIN
    assert "No win found" in result.stdout
    assert not Path("cudaforge_kernels").exists()


def test_a_recording_that_ends_fails_the_run_resumably(
    cli: Callable[..., Any], cli_json: Callable[..., Any], optimize: Callable[..., list[object]]
) -> None:
    arguments = optimize(coder=[kernel_reply("time_us=80")], judge=[plan_reply()])
    failed = cli(*arguments, "--rounds", 2)

    assert failed.exit_code == ExitCode.INFRASTRUCTURE
    assert "Error: The recording has ended" in failed.stderr
    run_id = re.search(r"`cudaforge resume (r\w{10})` continues the run", failed.stderr)
    assert run_id and cli_json("show", "last")["state"] == "failed"

    folder = Path(str(arguments[3]).removeprefix("recorded:"))
    (folder / "coder-01.md").write_text(kernel_reply("time_us=50"))
    run = cli_json("resume", run_id[1][:6])
    assert run["state"] == "done" and run["speedup"]["eager"]["value"] == 2.0
    assert "from" in cli("resume", "last").stdout  # done already: the result again, nothing is run


def test_a_run_whose_spool_nobody_serves_suspends_and_can_be_resumed(
    cli_json: Callable[..., Any], task_file: Path, recording: Callable[..., str], tmp_path: Path
) -> None:
    model = recording([kernel_reply("time_us=50")])
    arguments = ["optimize", task_file, "--coder", model, "--evaluator", f"spool:{tmp_path / 'idle'}"]
    run = cli_json(*arguments, "--language", "module", "--rounds", 1, exit_code=ExitCode.SUSPENDED)

    assert run["state"] == "suspended" and run["waiting_for"].endswith("baseline/0")
    pending = cli_json("pending")["pending"]
    assert [(p["kind"], p["run"]) for p in pending] == [("evaluation", run["id"])]
    with serving(tmp_path / "idle"):
        assert cli_json("resume", run["id"])["win"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--coder", "gpt-5"], "names no provider"),
        (["--coder", "nobody:x"], "unknown provider"),
        (["--coder", "recorded:/nowhere"], "is not a recording"),
        (["--judge", "openai:"], "lacks its name"),
        (["--evaluator", "cluster"], "Evaluator 'cluster' is unknown"),
        (["--evaluator", "local:gpu7"], "names no device"),
        (["--evaluator", "local:cpu", "--language", "cuda"], "cannot run cuda kernels"),
        (["--evaluator", "spool:/x"], "language cannot be guessed"),
        (["--budget-usd", "0"], "must be above 0"),
        (["--output", "not-a-package"], "cannot be a Python package's name"),
        (["--setting", "hot"], "is not NAME=VALUE"),
        (["--rounds", "0"], "Invalid value for '--rounds'"),
    ],
)
def test_a_mistake_costs_nothing_and_is_one_sentence_with_exit_code_2(
    cli: Callable[..., Any], cli_json: Callable[..., Any], task_file: Path, more: list[str], message: str
) -> None:
    result = cli("optimize", task_file, "--coder", "manual:", *more)

    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join(result.stderr.split()).replace("│ ", "")
    assert result.stdout == ""
    assert cli_json("runs")["runs"] == []


def test_an_error_with_json_is_json_too(cli_json: Callable[..., Any]) -> None:
    error = ErrorOutput.model_validate(
        cli_json("optimize", "nothing.py", "--coder", "manual:", "--language", "cpp", exit_code=ExitCode.USAGE)
    )
    assert error.error.startswith("nothing.py: cannot be read") and error.hint and error.exit_code == 2


def test_a_folder_with_something_else_in_it_is_not_written_to(
    cli: Callable[..., Any], task_file: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "mine"
    precious.mkdir()
    (precious / "model.py").write_text("precious")
    result = cli("optimize", task_file, "--coder", "manual:", "--language", "cpp", "--output", precious)

    assert result.exit_code == ExitCode.USAGE and "something other than a kernel" in result.stderr
    assert (precious / "model.py").read_text() == "precious"


def test_switches_change_the_preset_and_its_name_says_so(
    cli: Callable[..., Any], task_file: Path, tmp_path: Path, cudaforge_home: Path
) -> None:
    arguments = ["optimize", task_file, "--coder", "manual:", "--language", "module", "--preset", "paper"]
    arguments += ["--evaluator", f"spool:{tmp_path / 'idle'}", "--base", "best", "--no-correction", "--history", 3]
    assert cli(*arguments, "--budget-usd", 2, "--patience", 4, "--target", 3).exit_code == ExitCode.SUSPENDED

    store = wiring.open_store(cudaforge_home)
    try:
        (run,) = store.runs()
    finally:
        store.close()
    preset, budget = run.spec.preset, run.spec.budget
    assert (preset.base, preset.correction, preset.history, preset.metrics) == ("best", False, 3, "paper")
    assert preset.name == "paper base=best correction=False history=3"
    assert (budget.usd, budget.patience, budget.target_speedup) == (2.0, 4, 3.0)
    assert run.state is RunState.SUSPENDED
