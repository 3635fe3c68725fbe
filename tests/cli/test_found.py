"""Verdicts and profiles in words."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType
from support.records import incorrect, profile

from cudaforge.cli import found
from cudaforge.evaluation import Correctness, OutputError


def words(part: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_wrong_scalar_is_told_by_its_values_its_trial_and_its_workload() -> None:
    error = OutputError(output="output", mismatched=1, total=1, first=(((), 2.5, None),), pattern="every element")
    correctness = Correctness(trials=1, passed=0, tolerance="t", errors=(error,))
    changes = {"reason": "workload big: the output is nan where 2.5 is right.", "correctness": correctness}
    text = words(found.evaluation(incorrect().model_copy(update=changes)))
    assert "workload big: trial 1 is wrong (0 passed before it, the check ended with it)" in text
    assert "the output: expected 2.5, got NaN" in text
    assert "100" not in text and "output output" not in text


def test_of_several_workloads_the_profiled_one_is_named() -> None:
    assert "workload small (only the first is profiled)" in words(found.profile(profile(), ["small", "big"]))
    assert "workload" not in words(found.profile(profile(), ["default"]))


def test_missing_counters_are_explained_unless_it_was_said_before() -> None:
    bare = profile().model_copy(update={"unavailable": "ncu is not permitted"})
    assert "ncu is not permitted" in words(found.profile(bare))
    assert "ncu is not permitted" not in words(found.profile(bare, counters=False))
