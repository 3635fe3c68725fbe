"""One line for each object: `repr`, `print`, and what a terminal shows."""

from __future__ import annotations

from typing import Any

import pytest
from support import records, tasks

from cudaforge.notebook.plain import plain
from cudaforge.trace import Diagnosis

OBJECTS: dict[str, Any] = {
    "Task": records.task(),
    "Kernel": records.kernel("int x;\n" * 500),
    "Baseline": records.baseline(),
    "Evaluation": records.evaluation(),
    "Verification": records.verification(),
    "Plan": records.attempt().advice,
    "Diagnosis": Diagnosis(critical_issue="a\nb", why_it_matters="", minimal_fix_hint=""),
    "Attempt": records.attempt(),
    "Run": records.run(),
    "Profile": records.profile(b"\0" * 10_000),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_is_one_short_line_of_text(kind: str) -> None:
    thing = OBJECTS[kind]
    assert repr(thing).startswith(f"<{kind} ") and repr(thing).endswith(">")
    assert len(repr(thing)) < 240 and "\n" not in repr(thing)
    assert str(thing) == repr(thing)
    assert not any(0xD800 <= ord(character) < 0xE000 for character in repr(thing))


def test_a_line_says_what_one_asks_first() -> None:
    assert repr(tasks.cpp(flags=("-O3",))).endswith("cpp: kernel.cpp 12 lines, model.py 14 lines, -O3>")
    assert "PASSED, 10 µs a call, 2.50x [2.40, 2.60] over eager" in repr(records.evaluation())
    assert "INCORRECT, 1 of 4 values is off." in repr(records.incorrect())
    assert "12.5 µs, 2.50x [2.40, 2.60] over eager" in repr(records.attempt())
    assert "running" in repr(records.run())
    assert "no kernel" in repr(records.attempt(verdict=None, speedup=None, reply_error="x"))
    done = records.run(outcome=records.outcome(), state="done")
    assert "done, 2.50x [2.40, 2.60] over eager, verified" in repr(done)


def test_what_is_no_object_of_ours_keeps_its_own_line() -> None:
    assert plain(object()).startswith("<object object at")
