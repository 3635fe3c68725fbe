"""The task's own process, asked in this one: what a task file may hold."""

from __future__ import annotations

from typing import Any

from cudaforge.engine.reference import Reference

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


def test_a_task_may_define_dataclasses_under_postponed_annotations() -> None:
    """They look their module up by name, also after a workload's overrides."""
    asked: dict[str, Any] = {"device": "cpu", "dtype": None, "allow_tf32": False, "file": "task.py", "init_seed": 1}
    for overrides, size in (({}, 4), ({"width": 6}, 6)):
        reference = Reference()
        reference.load({**asked, "source": WITH_A_CONFIGURATION, "overrides": overrides}, [])
        assert reference.model.get_parameter("weight").shape == (size,)
