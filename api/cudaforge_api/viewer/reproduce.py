"""What one needs to measure a kernel again: the task as one file, and the commands."""

from __future__ import annotations

import re
import shlex

from cudaforge.kernel import Kernel
from cudaforge.task import Task
from cudaforge.trace import Run


def task_file(task: Task) -> str:
    """A name for the task's file, whatever the task is called."""
    plain = re.sub(r"[^A-Za-z0-9_\-]+", "_", task.name).strip("_-")[:80]
    return f"{plain or 'task'}.py"


def task_source(task: Task) -> str:
    """The task as one file: metadata that stood beside it is written into it."""
    if re.search(r"^CUDAFORGE\s*=", task.source, re.MULTILINE):
        return task.source
    meta = task.meta.model_dump(mode="json", exclude_defaults=True)
    return f"{task.source.rstrip()}\n\n\nCUDAFORGE = {meta!r}\n" if meta else task.source


def commands(run: Run, kernel: Kernel, base_url: str = "", token: bool = False) -> str:
    """Shell commands that fetch task and kernel from the service at `base_url` and evaluate one against the other.

    Without `base_url` the reader has put the files, which stand beside the commands, where they are named.
    """
    task, folder = task_file(run.spec.task), f"kernel_{kernel.id}"
    lines = []
    if base_url:
        header = ' -H "Authorization: Bearer $TOKEN"' if token else ""
        base = base_url.rstrip("/")
        lines = [
            f"curl -fsS{header} -o {task} {shlex.quote(f'{base}/runs/{run.id}/task.py')}",
            f"curl -fsS{header} -o kernel.zip {shlex.quote(f'{base}/api/v1/kernels/{kernel.id}/package')}",
            "python3 -m zipfile -e kernel.zip .",
        ]
    options = ["--format", kernel.language.value, "--trials", str(run.spec.options.trials)]
    if run.spec.options.strict_isolation:
        options.append("--strict-isolation")
    if run.spec.evaluator != "local":
        options += ["--evaluator", run.spec.evaluator]
    lines.append(shlex.join(["cudaforge", "evaluate", task, folder, *options]))
    return "\n".join(lines)
