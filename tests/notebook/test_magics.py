"""`%%cpp_kernel` and `%%cuda_kernel` in a shell: a real compiler once, a small evaluator for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from support import tasks
from support.small_evaluator import SmallEvaluator, small_task
from support.spool_server import serving

from cudaforge.kernel import Kernel
from cudaforge.notebook.cell import CellResult
from cudaforge.notebook.magics import Bench, KernelMagics
from cudaforge.session import Session
from cudaforge.trace import Action

Run = Callable[..., Any]
MODEL = "class ModelNew: ...\n# for small tasks\n"


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    made = InteractiveShell.instance()
    made.reset(new_session=True)
    yield made
    made.run_line_magic("unload_ext", "cudaforge")
    # The magics of these tests are registered by hand; the next test must not find their closed bench.
    made.magics_manager.registry.pop("KernelMagics", None)


@pytest.fixture
def small(shell: InteractiveShell) -> Iterator[SmallEvaluator]:
    """Magics over an evaluator that compiles nothing, with a task and a model.py in the notebook's variables."""
    evaluator = SmallEvaluator()
    bench = Bench(lambda spec: evaluator)
    shell.register_magics(KernelMagics(shell, bench))
    shell.user_ns.update(task=small_task(), model=MODEL)
    yield evaluator
    bench.close()


def run(shell: InteractiveShell, cell: str) -> Any:
    """What the cell gives; its error is raised."""
    done = shell.run_cell(cell)
    done.raise_error()
    return done.result


def test_a_cell_is_built_checked_and_timed_and_its_errors_stand_on_its_lines(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "%load_ext cudaforge")
    run(shell, "%load_ext cudaforge")
    shell.user_ns.update(task=tasks.scale_add(), model=tasks.MODEL_PY)
    lines = tasks.KERNEL_CPP.strip().splitlines()
    broken = [line.replace("o[r", "oops[r") for line in lines]
    at = next(number for number, line in enumerate(broken) if "oops" in line)

    result = run(shell, "\n".join(["%%cpp_kernel task --model model --evaluator local:cpu --no-compile", *broken]))
    assert isinstance(result, CellResult) and not result.passed
    printed = capsys.readouterr().out
    column = broken[at].index("oops") + 1
    assert f"cell:{at + 2}:{column}: error" in printed
    shown = printed.splitlines()
    caret = next(number for number, line in enumerate(shown) if line.strip() == "^")
    assert shown[caret - 1] == f"    {broken[at]}" and shown[caret].index("^") == column + 3
    assert f"cell:{at + 2}:{column}" in result._repr_html_()

    flags = '--flags "-O2 -fno-math-errno"'
    result = run(shell, "\n".join([f"%%cpp_kernel task --model model --no-compile {flags} --into kept", *lines]))
    assert result.passed and result.speedup and result.speedup.compile is None
    assert result.kernel == tasks.cpp("\n".join(lines) + "\n", flags=("-O2", "-fno-math-errno"))
    assert shell.user_ns["kept"] is result is shell.user_ns["_"]


def test_the_evaluator_stays_alive_from_cell_to_cell_and_ends_with_the_extension(
    shell: InteractiveShell, small: SmallEvaluator
) -> None:
    first = run(shell, "%%cpp_kernel task --model model\nint x;")
    second = run(shell, "%%cpp_kernel task --model model\nint y;")
    assert [r.evaluation.stages_s["pieces"] for r in (first, second)] == [1.0, 2.0]
    assert small.closed == 0
    run(shell, "%unload_ext cudaforge")


def test_with_profile_a_passing_kernel_is_profiled(shell: InteractiveShell, small: SmallEvaluator) -> None:
    result = run(shell, "%%cuda_kernel task --model model --profile\nint x;")
    assert result.profile.kernel == result.kernel.id and result.profile.report is None
    assert result.kernel.language == "cuda"
    broken = run(shell, "%%cuda_kernel task --model model --profile\nbroken")
    assert broken.profile is None or broken.passed
    assert "<Profile" in repr(result) and "metric set core" in result._repr_html_()


def test_a_session_takes_the_cell_as_an_edit(shell: InteractiveShell, small: SmallEvaluator, tmp_path: Path) -> None:
    with serving(tmp_path / "spool"):
        session = Session(tasks.scale_add(), language="cpp", evaluator=f"spool:{tmp_path / 'spool'}")
        shell.user_ns["session"] = session
        assert "There is no model.py" in said(shell, "%%cpp_kernel session\n// time_us=80")
        first = run(shell, "%%cpp_kernel session --model model --profile\n// time_us=80")
        second = run(shell, "%%cpp_kernel session\n// time_us=40")
        session.close()
    assert [a.action for a in session.history] == [Action.EDIT, Action.EDIT]
    assert session.head == second.attempt and second.attempt.base == first.attempt.id
    assert (first.evaluation.time_us, second.evaluation.time_us) == (80.0, 40.0)
    assert first.profile and first.profile.unavailable == "no ncu"
    assert session.result.source(second.attempt) == second.kernel
    assert second.kernel == Kernel.of("cpp", {"kernel.cpp": "// time_us=40\n", "model.py": MODEL})
    assert said(shell, "%%cuda_kernel session\nint x;").startswith("UsageError: The session's kernels are cpp")
    assert "has an evaluator of its own" in said(shell, "%%cpp_kernel session --evaluator local\nint x;")


def said(shell: InteractiveShell, cell: str) -> str:
    """What is printed for an error."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        done = shell.run_cell(cell)
    assert not done.success
    return out.getvalue()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nothing --model model", "UsageError: 'nothing' is neither a variable"),
        ("task", "UsageError: There is no model.py for this kernel.cpp."),
        ("task --model task", "UsageError: 'task' is neither a variable that holds text"),
        ("task --model wrong", "UsageError: model.py defines no class ModelNew."),
        ("task --model model --into 3x", "UsageError: --into '3x' is no name"),
        ('task --model model --flags "-o x"', "KernelError: build flag '-o' is not allowed"),
        ("task --model model --bogus", "UsageError: unrecognized arguments: --bogus"),
        ("", "UsageError: the following arguments are required: TASK"),
        ("number --model model", "UsageError: number is a int"),
    ],
)
def test_a_users_error_is_a_sentence_without_a_traceback(
    shell: InteractiveShell, small: SmallEvaluator, line: str, says: str
) -> None:
    shell.user_ns.update(wrong="x = 1\ny = 2\n", number=3)
    printed = said(shell, f"%%cpp_kernel {line}\nint x;")
    assert says in printed
    assert "Traceback" not in printed and "magics.py" not in printed


def test_an_infrastructure_failure_is_told_as_such(shell: InteractiveShell, small: SmallEvaluator) -> None:
    shell.user_ns["task"] = small_task("error")
    printed = said(shell, "%%cpp_kernel task --model model\nint x;")
    assert printed.startswith("EvaluatorError: ") and "Traceback" not in printed


def test_the_arguments_are_documented(shell: InteractiveShell, small: SmallEvaluator) -> None:
    text = shell.find_cell_magic("cuda_kernel").__doc__
    assert all(name in text for name in ("--model", "--flags", "--evaluator", "--profile", "--into", "TASK"))


def test_importing_cudaforge_loads_no_ipython() -> None:
    script = (
        "import sys, cudaforge; from cudaforge import Kernel, Task, Run, Evaluation\n"
        "print(sorted({'IPython', 'matplotlib', 'pygments', 'jinja2'} & {m.split('.')[0] for m in sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


def test_the_end_of_the_kernel_ends_the_evaluators_without_a_complaint() -> None:
    """They are open when Python goes down, and their processes go down with it."""
    script = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from support.small_evaluator import small_task\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_cell('%load_ext cudaforge')\n"
        "shell.user_ns.update(task=small_task(), model='class ModelNew: ...\\n')\n"
        "shell.run_cell('%%cuda_kernel task --model model --evaluator local:cuda:99\\nint x;')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert "EvaluatorError: cuda:99 is not here" in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr
