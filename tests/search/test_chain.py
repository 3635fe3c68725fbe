"""ChainPolicy: what the next round does, and when there is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.scripted import EAGER_US, scripted_spec

from cudaforge.evaluation import Interval, Speedup, Verdict
from cudaforge.ports import Step
from cudaforge.search.chain import ChainPolicy
from cudaforge.trace import PRESETS, Action, Attempt, Usage, now

FREE = Usage(usd=0.0)


def attempts(*rounds: str) -> list[Attempt]:
    """Finished attempts from `ACTION[@BASE] OUTCOME`: `draft 80` passed at 80 us, `repair@0 INCORRECT` failed,
    `revise@2 -` had no readable reply, `edit@2 undone` was taken back. A second number names the kernel:
    `revise@1 80 k1`."""
    made = []
    start = now()
    for number, text in enumerate(rounds):
        action, outcome, *kernel = text.split()
        name, _, base = action.partition("@")
        fields: dict[str, Any] = {}
        if outcome.replace(".", "").isdigit():
            ratio = EAGER_US / float(outcome)
            speedup = Speedup(eager=Interval(value=ratio, low=ratio, high=ratio))
            fields = {"verdict": Verdict.PASSED, "time_us": float(outcome), "speedup": speedup}
        elif outcome == "-":
            fields = {"reply_error": "No code."}
        elif outcome != "undone":
            fields = {"verdict": Verdict(outcome), "reason": "It failed."}
        made.append(
            Attempt(
                id=f"r.{number}",
                run_id="r",
                round=number,
                action=Action(name),
                base=f"r.{base}" if base else None,
                kernel=None if outcome == "-" else (kernel or [f"k{number}"])[0],
                started=start,
                finished=start + timedelta(seconds=10),
                **fields,
            )
        )
    return made


def step(*rounds: str, preset: str = "default", spent: Usage = FREE, seconds: float = 0.0, **budget: Any) -> Step:
    spec = scripted_spec(preset=preset, **budget)
    return ChainPolicy().next(spec, attempts(*rounds), spent, seconds)


def test_the_first_round_drafts() -> None:
    assert step() == Step(action="draft")


def test_what_a_person_took_back_counts_as_a_round_and_as_nothing_else() -> None:
    assert step("draft 80", "edit@0 undone") == Step(action="revise", base="r.0")
    assert step("edit undone") == Step(action="draft")
    assert step("draft INCORRECT", "edit@0 70", "revise@1 undone") == Step(action="revise", base="r.1")
    assert step("draft 80", "edit@0 undone", rounds=2).action == "stop"


def test_a_failure_is_repaired_from_the_last_attempt() -> None:
    assert step("draft 80", "revise@0 60", "revise@1 INCORRECT") == Step(action="repair", base="r.2")


def test_a_pass_is_followed_by_a_revision_of_the_best() -> None:
    assert step("draft 80", "revise@0 60", "revise@1 70") == Step(action="revise", base="r.1")


def test_after_three_failed_repairs_in_a_row_the_best_is_revised_again() -> None:
    line = ["draft 80", "revise@0 BUILD_FAILED", "repair@1 INCORRECT", "repair@2 TIMEOUT"]
    assert step(*line) == Step(action="repair", base="r.3")
    assert step(*line, "repair@3 RUNTIME_ERROR") == Step(action="revise", base="r.0")
    assert step(*line, "repair@3 RUNTIME_ERROR", "revise@0 INCORRECT") == Step(action="repair", base="r.5")


def test_a_draft_that_cannot_be_repaired_is_given_up_for_a_new_one() -> None:
    line = ["draft BUILD_FAILED", "repair@0 BUILD_FAILED", "repair@1 BUILD_FAILED", "repair@2 -"]
    assert step(*line) == Step(action="draft")
    assert step(*line, "draft INCORRECT") == Step(action="repair", base="r.4")


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (["draft -"], Step(action="draft")),
        (["draft INCORRECT", "repair@0 -"], Step(action="repair", base="r.0")),
        (["draft 80", "revise@0 INCORRECT", "repair@1 60", "revise@2 -"], Step(action="revise", base="r.2")),
        (["draft 80", "revise@0 REJECTED", "repair@1 -", "repair@1 -"], Step(action="repair", base="r.1")),
    ],
)
def test_an_unreadable_reply_repeats_its_step(rounds: list[str], expected: Step) -> None:
    assert step(*rounds) == expected


def test_the_paper_always_goes_on_from_the_last_kernel() -> None:
    assert step("draft 80", "revise@0 60", "revise@1 70", preset="paper") == Step(action="revise", base="r.2")
    failing = ["draft 80", *(f"repair@{n} INCORRECT" for n in range(6))]
    assert step(*failing, preset="paper") == Step(action="repair", base="r.6")


def test_without_optimization_the_first_pass_ends_the_search() -> None:
    preset = PRESETS["paper"].model_copy(update={"optimization": False})
    spec = scripted_spec(preset=preset)
    assert ChainPolicy().next(spec, attempts("draft INCORRECT"), FREE, 0.0).action == "repair"
    assert ChainPolicy().next(spec, attempts("draft INCORRECT", "repair@0 300"), FREE, 0.0).action == "stop"


def test_rounds_are_counted_failures_included() -> None:
    assert step("draft 80", "revise@0 -", rounds=3).action == "revise"
    assert step("draft 80", "revise@0 -", rounds=2) == Step(action="stop", reason="2 rounds spent")
    assert step("draft 80", rounds=1) == Step(action="stop", reason="1 round spent")


def test_the_target_stops_even_when_a_later_round_was_slower() -> None:
    line = ["draft 80", "revise@0 50", "revise@1 60"]
    assert step(*line, target_speedup=2.0) == Step(action="stop", reason="target 2x reached")
    assert step(*line, target_speedup=2.1).action == "revise"


def test_patience_counts_the_rounds_since_the_last_better_kernel() -> None:
    line = ["draft 80", "revise@0 90", "revise@0 80", "revise@0 70", "revise@3 71", "revise@3 INCORRECT"]
    assert step(*line, patience=3).action == "repair"
    assert step(*line, patience=2) == Step(action="stop", reason="no better kernel in 2 rounds")


def test_a_round_that_would_exceed_the_money_is_not_begun() -> None:
    line = ["draft 80", "revise@0 60"]
    assert step(*line, usd=0.75, spent=Usage(usd=0.5)).action == "revise"
    assert step(*line, usd=0.75, spent=Usage(usd=0.51)).action == "stop"


def test_unknown_prices_do_not_stop_a_run() -> None:
    assert step("draft 80", usd=0.01, spent=Usage(input_tokens=10**9)).action == "revise"


def test_time_is_kept_for_the_verification() -> None:
    line = ["draft 80", "revise@0 60"]  # 10 s a round: one more and the verification take 20 s
    spec = scripted_spec(seconds=100)
    assert ChainPolicy().next(spec, attempts(*line), FREE, 79.0).action == "revise"
    assert ChainPolicy().next(spec, attempts(*line), FREE, 80.0).action == "stop"


def test_the_ranking_has_the_fastest_first_and_each_kernel_once() -> None:
    line = attempts("draft 80 a", "revise@0 60 b", "revise@1 INCORRECT", "repair@2 60 c", "revise@3 60 b", "revise@3 -")
    assert [a.id for a in ChainPolicy().ranking(line)] == ["r.1", "r.3", "r.0"]
    assert ChainPolicy().ranking([]) == []
