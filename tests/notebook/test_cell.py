"""What a cell's arguments mean, and where its errors are said to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import records, tasks
from support.recorded_home import PASSED

from cudaforge.errors import TaskError, UsageError
from cudaforge.evaluation import Diagnostic, Evaluation, Verdict
from cudaforge.kernel import Language
from cudaforge.notebook.cell import (
    Asked,
    CellResult,
    find_model,
    find_task,
    minimal_model_py,
    on_cell_lines,
    split_flags,
)
from cudaforge.results import RunResult
from cudaforge.session import Session

TASK = tasks.scale_add()


def refused(*diagnostics: Diagnostic, reason: str = "kernel.cpp:3: no") -> Evaluation:
    return Evaluation(
        verdict=Verdict.BUILD_FAILED,
        reason=reason,
        task=TASK.id,
        kernel=tasks.cpp().id,
        device=records.DEVICE,
        diagnostics=diagnostics,
    )


def test_a_task_is_a_variable_or_a_file(of_run: Callable[[str], RunResult], tmp_path: Path) -> None:
    path = tmp_path / "my task.py"
    path.write_text(tasks.SCALE_ADD)
    result = of_run(PASSED)
    session, fresh = Session.resume(result.id, home=result.home), Session(TASK, language="cpp")
    variables = {"task": TASK, "where": path, "result": result, "session": session, "fresh": fresh}
    assert find_task("task", variables).task is TASK
    assert find_task("where", variables).task == find_task(f"'{path}'", {}).task
    found = find_task("result", variables)
    assert found.task == result.task and found.session is None
    assert result.kernel and found.model_py == result.kernel.files["model.py"]
    found = find_task("session", variables)
    source = result.source(result.attempts[-1])
    assert found.session is session and source and found.model_py == source.files["model.py"]
    assert find_task("fresh", variables).model_py == ""


@pytest.mark.parametrize(
    ("name", "says"), [("nothing", "neither a variable of this notebook nor a file"), ("number", "is a int")]
)
def test_what_names_no_task_is_refused_with_a_hint(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        find_task(name, {"number": 3})
    assert "a Task, a result of cf.optimize or a Session" in caught.value.hint


def test_a_file_that_is_no_task_says_why(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("x = 1\n")
    with pytest.raises(TaskError, match=r"t\.py:1: is not a task"):
        find_task(str(tmp_path / "t.py"), {})


def test_model_py_is_a_variable_a_file_or_that_of_the_kernel_built_on(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(tasks.MODEL_PY)
    variables: dict[str, Any] = {"text": tasks.MODEL_PY, "kernel": tasks.cpp(), "path": str(path)}
    for name in (*variables, str(path), f'"{path}"'):
        assert find_model(name, variables, Asked(TASK), Language.CPP) == tasks.MODEL_PY
    assert find_model(None, {}, Asked(TASK, model_py="class ModelNew: ..."), Language.CPP) == "class ModelNew: ..."


def test_without_a_model_py_the_error_shows_a_minimal_one_for_this_task() -> None:
    with pytest.raises(UsageError, match=r"no model\.py for this kernel\.cpp") as caught:
        find_model(None, {}, Asked(TASK), Language.CPP)
    assert "class ModelNew" in caught.value.hint and "--model NAME" in caught.value.hint
    text = minimal_model_py(TASK)
    compile(text, "model.py", "exec")
    assert "def forward(self, x, y):" in text and "self.weight = nn.Parameter(torch.ones(n))" in text
    compile(minimal_model_py(records.task()), "model.py", "exec")


@pytest.mark.parametrize(
    ("text", "says"),
    [("class A:\n  def f(:\n", r"model\.py:2: invalid syntax"), ("x = 1\n", "defines no class ModelNew")],
)
def test_model_pys_own_errors_are_told_as_such(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        find_model("text", {"text": text}, Asked(TASK), Language.CPP)
    assert caught.value.hint == "This is model.py, not the cell."


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="neither a variable that holds text nor a file"):
        find_model("missing", {"missing": 3}, Asked(TASK), Language.CPP)


def test_flags_are_split_as_a_shell_does() -> None:
    assert split_flags('"-O3 -march=native"') == ("-O3", "-march=native")
    assert split_flags(None) == ()
    with pytest.raises(UsageError, match="--flags cannot be read"):
        split_flags("-O3 'x")


def test_errors_stand_on_the_cells_own_lines() -> None:
    """The magic is line 1 of the cell, so kernel.cpp:3 is line 4."""
    own = Diagnostic(
        severity="error", message="see kernel.cpp:2", file="kernel.cpp", line=3, column=7, source_line="  int x"
    )
    other = Diagnostic(severity="error", message="no", file="model.py", line=3)
    header = Diagnostic(severity="note", message="in other/kernel.cpp:9", file="other/kernel.cpp", line=9)
    moved = on_cell_lines(refused(own, other, header), Language.CPP)
    assert moved.reason == "cell:4: no"
    assert [(d.file, d.line, d.message) for d in moved.diagnostics] == [
        ("cell", 4, "see cell:3"),
        ("model.py", 3, "no"),
        ("other/kernel.cpp", 9, "in other/kernel.cpp:9"),
    ]


def test_a_result_in_plain_text_has_the_source_line_and_a_caret() -> None:
    said = Diagnostic(severity="error", message="no", file="kernel.cpp", line=3, column=7, source_line="\tint x = y;")
    result = CellResult(TASK, tasks.cpp(), refused(said))
    assert repr(result).splitlines()[1:] == ["cell:4:7: error: no", "        int x = y;", "             ^"]
    assert not result.passed and result.speedup is None
    assert "of 12 values" not in repr(result)
    wrong = CellResult(TASK, tasks.cpp(), records.incorrect())
    assert "1 of 4 values (25.0%) are off" in repr(wrong)
    many = CellResult(TASK, tasks.cpp(), refused(*[said] * 20))
    assert repr(many).endswith("and 8 more messages")
