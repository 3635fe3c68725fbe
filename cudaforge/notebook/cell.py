"""A cell as a kernel: what its arguments mean, and what came of it with compiler errors on the cell's own lines."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cudaforge import words
from cudaforge.errors import KernelError, UsageError
from cudaforge.evaluation import Diagnostic, Evaluation, Speedup
from cudaforge.kernel import Kernel, Language, check_model_py
from cudaforge.notebook.plain import plain
from cudaforge.task import Task
from cudaforge.trace import Attempt
from cudaforge_profiling.types import Profile

CELL = "cell"
"""What diagnostics call the source file."""
MOST_SHOWN = 12


@dataclass(frozen=True, repr=False)
class CellResult:
    """What `%%cuda_kernel` and `%%cpp_kernel` leave in `_`."""

    task: Task
    kernel: Kernel
    evaluation: Evaluation
    profile: Profile | None = None
    """Only with --profile, and where the kernel passed."""
    attempt: Attempt | None = None
    """The session's round that the cell became."""

    @property
    def passed(self) -> bool:
        """Whether the kernel is right, built and timed."""
        return self.evaluation.passed

    @property
    def speedup(self) -> Speedup | None:
        """Over eager and torch.compile, screened; None where the kernel did not pass."""
        return self.evaluation.speedup

    def _repr_html_(self) -> str:
        from cudaforge.notebook.display import html

        moved = html(on_cell_lines(self.evaluation, self.kernel.language))
        return moved + (html(self.profile) if self.profile else "")

    def __repr__(self) -> str:
        moved = on_cell_lines(self.evaluation, self.kernel.language)
        shown = [plain(moved), *(_told(d) for d in moved.diagnostics[:MOST_SHOWN])]
        if len(moved.diagnostics) > MOST_SHOWN:
            shown.append(f"and {len(moved.diagnostics) - MOST_SHOWN} more messages")
        if moved.correctness and not moved.passed:
            shown += words.correctness(moved.correctness, words.failed_workload(moved.reason))
        return "\n".join([*shown, *([repr(self.profile)] if self.profile else [])])


def _told(said: Diagnostic) -> str:
    from cudaforge.notebook.display import caret

    place = ":".join(str(part) for part in (said.file, said.line or "", said.column or "") if part)
    line, below = caret(said)
    shown = "".join(f"\n    {text}" for text in (line, below) if text)
    return f"{words.one_line(place, 120)}: {said.severity}: {words.clean(said.message)}{shown}"


def on_cell_lines(found: Evaluation, language: Language) -> Evaluation:
    """The evaluation with places in the source file told as the cell's: its line 1 is the magic's, so kernel.cu:n is
    line n + 1. Places in model.py and in headers stay as they are."""
    name = language.source_name
    if name is None:
        return found

    def moved(text: str) -> str:
        place = rf"(?<![\w/.]){re.escape(name)}:(\d{{1,9}})"
        return re.sub(place, lambda match: f"{CELL}:{int(match[1]) + 1}", text)

    said = tuple(
        d.model_copy(update={"message": moved(d.message)})
        if d.file != name or d.line <= 0
        else d.model_copy(update={"file": CELL, "line": d.line + 1, "message": moved(d.message)})
        for d in found.diagnostics
    )
    return found.model_copy(update={"diagnostics": said, "reason": moved(found.reason)})


# -- arguments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a cell is judged against. `session` is the session that it edits, if any."""

    task: Task
    session: Any = None
    model_py: str = ""
    """Of the kernel that is built on; empty where there is none."""


def find_task(name: str, variables: Mapping[str, Any]) -> Asked:
    """TASK: a variable with a Task, RunResult, Session or path in it, else a path. Raises UsageError and TaskError."""
    thing: Any = variables.get(name) if name.isidentifier() else None
    kinds = {kind.__name__ for kind in type(thing).__mro__}
    if isinstance(thing, Task):
        return Asked(thing)
    if "Session" in kinds:
        kernel = thing.result.source(thing.head) if thing.head else None
        return Asked(thing.run.spec.task, thing, _model_py(kernel))
    if "RunResult" in kinds:
        return Asked(thing.task, None, _model_py(thing.kernel))
    if isinstance(thing, str | Path):
        return Asked(Task.load(thing))
    if thing is not None:
        raise UsageError(
            f"{name} is a {type(thing).__name__}, which names no task.",
            "TASK is the path of a task file, or a variable that holds a Task, a result of cf.optimize or a Session.",
        )
    path = Path(unquoted(name)).expanduser()
    if not path.exists():
        raise UsageError(
            f"{unquoted(name)!r} is neither a variable of this notebook nor a file.",
            "TASK is the path of a task file, or a variable that holds a Task, a result of cf.optimize or a Session.",
        )
    return Asked(Task.load(path))


def _model_py(kernel: Any) -> str:
    return str(kernel.files.get("model.py", "")) if kernel is not None else ""


def find_model(name: str | None, variables: Mapping[str, Any], asked: Asked, language: Language) -> str:
    """The text of model.py: --model's variable or file, else that of the kernel that is built on. Raises UsageError."""
    if name is None:
        if asked.model_py:
            return asked.model_py
        raise UsageError(
            f"There is no model.py for this {language.source_name}.",
            "model.py is the other half of a kernel: class ModelNew, with the constructor, the parameters and the "
            "forward of the task's Model, which calls what the cell exports. Write one such as this into a variable "
            f"and pass its name, --model NAME:\n\n{minimal_model_py(asked.task)}",
        )
    thing = variables.get(name) if name.isidentifier() else None
    if isinstance(thing, Kernel) or hasattr(thing, "files"):
        text = _model_py(thing)
    elif isinstance(thing, str) and "\n" in thing:
        text = thing
    else:
        path = Path(thing if isinstance(thing, str | Path) else unquoted(name)).expanduser()
        if not path.is_file():
            raise UsageError(
                f"{unquoted(name)!r} is neither a variable that holds text nor a file.",
                "--model takes the path of a model.py, or a variable with its text.",
            )
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        check_model_py(text)
    except KernelError as error:  # model.py's own error, told as such before anything is built
        raise UsageError(error.message, "This is model.py, not the cell.") from None
    return text


def unquoted(text: str) -> str:
    """Without the quotes that IPython leaves about an argument."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def split_flags(text: str | None) -> tuple[str, ...]:
    """`--flags "-O3 -march=native"` as flags. Raises UsageError for quotes that do not match."""
    try:
        return tuple(shlex.split(unquoted(text))) if text else ()
    except ValueError as error:
        raise UsageError(f"--flags cannot be read: {error}.", '--flags "-O3 -march=native"') from None


def minimal_model_py(task: Task) -> str:
    """A model.py for this task to begin with: its constructor and forward's arguments, and one launcher."""
    tree = ast.parse(task.source)
    model = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Model"), None)
    methods = {n.name: n for n in model.body if isinstance(n, ast.FunctionDef)} if model else {}
    init = methods.get("__init__")
    constructor = ast.get_source_segment(task.source, init) if init else None
    arguments = [a.arg for a in methods["forward"].args.args[1:]] if "forward" in methods else ["x"]
    passed = ", ".join(arguments)
    lines = ["import torch", "from torch import nn", "from .kernel import launch", "", "class ModelNew(nn.Module):"]
    lines += [f"    {constructor}", ""] if constructor else []
    lines += [
        f"    def forward(self, {passed}):",
        f"        out = torch.empty_like({arguments[0] if arguments else 'torch.empty(1)'})",
        f"        launch({passed + ', ' if passed else ''}out)  # and the parameters that it needs",
        "        return out",
    ]
    return "\n".join(lines)
