"""The task's own process, asked in this one: what a task file may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cudaforge.engine.calls import Calls
from cudaforge.engine.hosts import TaskBroken
from cudaforge.engine.reference import Reference
from cudaforge.engine.supervisor import Supervisor
from cudaforge.task import Task

WITH_A_CONFIGURATION = """from __future__ import annotations

import dataclasses

import torch
from torch import nn

width = 4

@dataclasses.dataclass
class Settings:
    width: int

class Model(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(Settings(width).width))

    def forward(self, x):
        return x * self.weight

def get_inputs():
    return [torch.randn(2, width)]

def get_init_inputs():
    return [width]
"""


MIXED = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(300))

    def forward(self, x, y, z):
        return x * self.weight + y + z

def get_inputs():
    return [torch.randn(300), torch.rand(300) + 3, torch.randint(-90, 90, (300,)).float()]

def get_init_inputs():
    return []
"""


def test_a_drawn_input_that_is_used_again_has_other_values_within_its_range(tmp_path: Path) -> None:
    task = Task.parse(MIXED, name="mixed")
    supervisor = Supervisor(tmp_path, "cpu")
    try:
        reference = supervisor._reference(task, task.meta.workloads[0])
        reference.inputs_s = 1.0  # so slow that one set is drawn for a batch, and the others made of it
        reference.fill(3)
        sets = [[reference.source.tensor(3 * i + k).clone() for k in range(3)] for i in range(3)]
    finally:
        supervisor.close()
    for first, second in ((sets[0], sets[1]), (sets[1], sets[2])):
        for k in (0, 1):
            assert len(set(first[k].tolist()) & set(second[k].tolist())) < 3  # a few by chance
        assert torch.equal(first[2], second[2])  # codes, it may be
    assert all(float(s[1].min()) >= 3 and float(s[1].max()) < 4 for s in sets)
    moved = [[rolled(sets[0][k], s[k], lowest) for k, lowest in ((0, 0.0), (1, 3.0))] for s in sets[1:]]
    assert any(a != b for a, b in moved), "x and y are not moved alike"


def rolled(drawn: torch.Tensor, made: torch.Tensor, lowest: float) -> int:
    """By how many elements `made` is `drawn` rolled; each element has lost a share of its own, of 5 to 10 %."""
    for by in range(drawn.numel()):
        before, now = drawn.flatten().roll(by) - lowest, made.flatten() - lowest
        kept = (now / before)[before.abs() > 0.05]  # not of what is hardly more than its rounding
        if bool(((kept > 0.9) & (kept < 0.952)).all()):
            assert float(kept.std()) > 0.005 and kept.unique().numel() > 0.9 * kept.numel()
            return by
    raise AssertionError("not made of the drawn values")


def test_trained_parameters_are_moved_around_and_scaled() -> None:
    asked: dict[str, Any] = {"device": "cpu", "dtype": None, "allow_tf32": False, "file": "task.py", "init_seed": 1}
    reference = Reference()
    reference.load({**asked, "source": MIXED, "overrides": {}}, [])
    weight = reference.model.get_parameter("weight").detach().clone()
    norms = set()
    for seed in (1, 2, 3):
        reference._set_parameters(seed)
        norms.add(float(reference.model.get_parameter("weight").detach().norm() / weight.norm()))
    assert len(norms) == 3 and all(0.74 < norm < 1.26 for norm in norms)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    source = MIXED.replace("return x * self.weight + y + z", "return torch.complex(x, y)")
    supervisor = Supervisor(tmp_path, "cpu")
    task = Task.parse(source, name="odd")
    try:
        with pytest.raises(TaskBroken, match=r"outputs of torch\.complex64 are not supported"):
            supervisor._reference(task, task.meta.workloads[0])
    finally:
        supervisor.close()


def test_a_task_may_define_dataclasses_under_postponed_annotations() -> None:
    """They look their module up by name, also after a workload's overrides."""
    asked: dict[str, Any] = {"device": "cpu", "dtype": None, "allow_tf32": False, "file": "task.py", "init_seed": 1}
    for overrides, size in (({}, 4), ({"width": 6}, 6)):
        reference = Reference()
        reference.load({**asked, "source": WITH_A_CONFIGURATION, "overrides": overrides}, [])
        assert reference.model.get_parameter("weight").shape == (size,)


def test_only_the_last_batch_of_a_process_is_held() -> None:
    """On a GPU there is room for the outputs of one batch, eager's or torch.compile's."""
    runner = Reference()
    runner.calls = {what: Calls(lambda: torch.ones(2), "cpu") for what in ("eager", "compile:default")}
    for calls in runner.calls.values():
        calls.inputs = [[]]
    runner.borrowed.bases["table"] = torch.zeros(64, dtype=torch.uint8)
    for what, other in (("eager", "compile:default"), ("compile:default", "eager")):
        runner.batch({"what": what, "order": [0, 0, 0]}, [])
        assert len(runner.calls[what].held) == 3 and not runner.calls[other].held
    runner.arrange({"what": "eager", "sets": [], "fresh": False, "held": 0, "buffer": "source"}, [])
    assert not runner.calls["compile:default"].held
