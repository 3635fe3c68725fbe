"""The examples do what they say: every task is run by PyTorch, every numbered script is executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cudaforge import examples
from cudaforge.task import Task

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TASKS = sorted((EXAMPLES / "tasks").glob("*.py"))
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))

RUN_A_TASK = """
import importlib.util, json, sys
import torch
spec = importlib.util.spec_from_file_location("task", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for overrides in json.loads(sys.argv[2]):
    vars(module).update(overrides)
    model, inputs = module.Model(*module.get_init_inputs()), module.get_inputs()
    out, again = model(*inputs), model(*inputs)
    assert torch.isfinite(out).all() and torch.equal(out, again) and out.dtype is torch.float32
    moved = [*inputs, *model.parameters(), out]
    print(sum(t.numel() * t.element_size() for t in moved))
"""


def run(script: Path | str, *arguments: str, home: Path) -> str:
    """What a script prints; a failing one fails the test with its own words."""
    command = [sys.executable, *(["-c", script] if isinstance(script, str) else [str(script)]), *arguments]
    environment = {**os.environ, "CUDAFORGE_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_task_loads_and_runs_in_every_workload(path: Path, tmp_path: Path) -> None:
    task = Task.load(path)
    assert task.name == path.stem
    assert task.meta.notes
    overrides = json.dumps([workload.overrides for workload in task.meta.workloads])
    sizes = [int(line) for line in run(RUN_A_TASK, str(path), overrides, home=tmp_path).split()]
    # Small enough for a laptop and for a round of seconds, large enough that a call is not all overhead.
    assert all(4 << 20 <= size <= 128 << 20 for size in sizes)


def test_scripts_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:2]) for path in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


def test_01_prints_each_task(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "01_load_a_task.py", home=tmp_path)
    assert all(path.stem in printed for path in TASKS)


def test_02_finds_the_example_kernel_right(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "02_evaluate_a_kernel.py", home=tmp_path)
    assert printed.startswith("PASSED")
    assert "over eager" in printed


def test_03_optimises_with_the_recording_and_04_reads_the_trace(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "03_optimize.py", "2", home=tmp_path)
    assert "recorded" in printed
    assert ": done. " in printed
    trace = run(EXAMPLES / "04_read_the_trace.py", home=tmp_path)
    assert "round 0 draft" in trace
    assert "round 1" in trace
    assert "run_finished" in trace


def test_05_puts_a_kernel_in_the_place_of_a_live_module(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "05_a_session.py", home=tmp_path)
    assert "PASSED: " in printed
    assert "the model's output is the same" in printed


def test_every_task_has_a_recording_for_the_cpu() -> None:
    for path in TASKS:
        example = examples.find(path.stem, "cpp")
        assert example.rounds >= 1
        assert example.made_by
        assert example.note
