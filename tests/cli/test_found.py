"""Verdicts and profiles in words."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType
from support.records import evaluation, incorrect, profile

from cudaforge.cli import found
from cudaforge.evaluation import Attribution, Correctness, Evaluation, Interval, OutputError, Share


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


def spread(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def timed(**changes: object) -> Evaluation:
    """A PASSED evaluation whose one workload has these fields."""
    passed = evaluation()
    return passed.model_copy(update={"workloads": (passed.workloads[0].model_copy(update=changes),)})


def test_a_kernel_that_passed_shows_whose_code_did_the_work_and_by_which_clock() -> None:
    top = (
        Share(name="_Z7softmaxPfi", kind="own", share=0.9),
        Share(name="_Z6gemv_kIfEvPT_", kind="library", share=0.08),
        Share(name="[memcpy]", kind="free", share=0.02),
    )
    who = Attribution(how="CUPTI, traced calls", own=0.9, library=0.08, free=0.02, top=top, launches=3)
    text = words(found.evaluation(timed(attribution=who, aids={"events_us": spread(9.75), "enqueue_us": spread(4.0)})))
    assert "work done by own code 90%, libraries 8%, copying and filling 2%; 3 launches a call" in text
    assert "8% gemv_k<float>" in text and "softmax" not in text
    assert "clock: cpu; aside, a call: its own events 9.75 µs, queueing on the host 4 µs" in text


def test_libraries_that_did_nothing_are_not_mentioned() -> None:
    alone = Attribution(how="80 samples", own=1.0, library=0.0, free=0.0, samples=80)
    assert "work done by own code 100%\n" in words(found.evaluation(timed(attribution=alone))).replace(" \n", "\n")
    unknown = Attribution(how="3 samples", own=0.0, library=0.0, free=0.0)
    assert "cannot be said: 3 samples" in words(found.evaluation(timed(attribution=unknown)))
    assert "work done by" not in words(found.evaluation(evaluation()))
