"""Numbers, untrusted text and JSON, as the command writes them."""

from __future__ import annotations

import json

import pytest

from cudaforge import words
from cudaforge.cli import output
from cudaforge.errors import UsageError
from cudaforge.evaluation import Interval
from cudaforge.shapes import ErrorOutput


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.5, "0.5 µs"), (12.3456, "12.35 µs"), (999.96, "1000 µs"), (4120.5, "4.12 ms"), (2.5e7, "25 s")],
)
def test_times_have_four_digits_and_a_fitting_unit(value: float | None, text: str) -> None:
    assert words.microseconds(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "40 ms"), (9.94, "9.9 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7380, "2 h 03 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_unknown_prices_are_said_to_be_unknown() -> None:
    assert [words.dollars(usd) for usd in (None, 0.0, 0.01234)] == ["unknown", "$0", "$0.0123"]


def test_intervals_and_sizes() -> None:
    assert words.interval(Interval(value=2.314, low=2.28, high=2.35)) == "2.31x [2.28, 2.35]"
    assert words.interval(None) == "–"
    assert [words.size(n) for n in (0, 999, 1500, 2_500_000, 3_000_000_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3000.0 GB",
    ]


def test_what_models_and_candidates_write_cannot_drive_the_terminal() -> None:
    assert words.clean("a\x1b[2Jb\x07c\ud800d\tE\n") == "abcd    E\n"
    assert words.one_line("two\n  lines " + "x" * 200, 12) == "two lines x…"


def test_json_takes_any_text_and_any_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit(ErrorOutput(error="lone \ud800, 内核", hint="", exit_code=2))
    text = capsys.readouterr().out
    assert text.isascii() and json.loads(text)["error"] == "lone \ud800, 内核"


def test_errors_are_a_sentence_and_a_hint_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(UsageError("No [bold]markup[/bold] here: k[0].", "Write [x]."), as_json=False)
    assert capsys.readouterr().err == "Error: No [bold]markup[/bold] here: k[0].\nHint: Write [x].\n"
