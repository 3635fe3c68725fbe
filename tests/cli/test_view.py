"""Tables of rounds at the widths of real terminals, and the words around them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from support.records import attempt

from cudaforge.cli.view import RoundsTable, verdict_text
from cudaforge.describe import attempt_output, tried
from cudaforge.evaluation import Verdict
from cudaforge.trace import Action, Attempt, Diagnosis
from cudaforge.words import short_model

ISSUE = Diagnosis(
    critical_issue="the tail is never written", why_it_matters="it stays as it was", minimal_fix_hint="write it"
)


def rounds() -> list[Attempt]:
    """Twelve rounds, the widest of every column among them."""
    failed = attempt(number=0, verdict=Verdict.INFRASTRUCTURE, speedup=None, time_us=None, advice=ISSUE)
    slow = attempt(number=1, time_us=27_620.0, measured_gain=0.08)
    return [failed, slow, *(attempt(number=n, time_us=123.4, measured_gain=12.31) for n in range(2, 12))]


def drawn(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(RoundsTable([attempt_output(a) for a in rounds()], "r000000001.11"))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 110, 140])
def test_rounds_and_numbers_are_whole_at_every_width(width: int) -> None:
    head, *lines = drawn(width)
    assert len(lines) == 12 and all(len(line) <= width for line in [head, *lines])
    assert head.startswith("#   action verdict") and "vs eager" in head and "vs base" in head
    assert [line.split()[0] for line in lines] == [*map(str, range(11)), "11★"]
    assert "! INFRASTRUCTURE" in lines[0] and "27.62 ms" in lines[1] and "12.31x" in lines[11]


def test_what_was_tried_goes_first_then_the_comparison_with_compile() -> None:
    assert "the tail is never written" in drawn(110)[1]
    assert drawn(80)[1].endswith("…") and "vs compile" in drawn(80)[0]
    assert "tried" not in drawn(70)[0] and "vs compile" in drawn(70)[0]
    assert "vs compile" not in drawn(60)[0]


def test_a_repair_is_told_by_what_was_wrong_and_a_waiting_one_by_nothing() -> None:
    waiting = {"verdict": None, "kernel": None, "finished": None, "speedup": None, "time_us": None}
    repair = {"action": Action.REPAIR, "advice": None}
    assert tried(attempt_output(attempt(**repair | {"advice": ISSUE}))) == "the tail is never written"
    assert tried(attempt_output(attempt(**repair | waiting))) == ""
    assert tried(attempt_output(attempt(**repair))) == "repair from the raw error"
    assert tried(attempt_output(attempt(**waiting | {"action": Action.DRAFT, "advice": None}))) == "first draft"


def test_what_a_person_did_in_a_session_is_told() -> None:
    edited = {"action": Action.EDIT, "advice": None}
    assert tried(attempt_output(attempt(**edited))) == "edited by hand"
    assert tried(attempt_output(attempt(action=Action.REVISE, advice=None, hint="one pass"))) == "one pass"
    undone = attempt(**edited, verdict=None, speedup=None, time_us=None)
    assert undone.withdrawn
    assert verdict_text(attempt_output(undone)).plain == "– taken back"


def test_a_recording_is_named_without_its_path() -> None:
    assert short_model("recorded:/very/long/path/row_softmax-cpp") == "recorded:row_softmax-cpp"
    assert short_model("openai:org/name") == "openai:org/name"
