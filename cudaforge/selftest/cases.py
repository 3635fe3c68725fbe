"""Cases: a kernel each, what it shows, and which verdicts on it are right."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cudaforge.errors import UsageError
from cudaforge.evaluation import Evaluation, Speedup, Verdict
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task

HERE = Path(__file__).resolve().parent
BREACH = re.compile(r"^BREACH: .*$", re.MULTILINE)
"""A kernel prints such a line where its attack on the host got through, whatever the verdict on its values is."""

Device = Literal["cpu", "cuda"]
TASKS: dict[Device, str] = {"cpu": "tasks", "cuda": "tasks_cuda"}
"""Folders of task files: a GPU needs larger ones to be kept busy."""
Family = Literal["reuse", "memory", "timing", "semantics", "harness"]
Status = Literal["caught", "missed", "wrongly rejected", "right", "infrastructure"]


class ExploitClass(BaseModel):
    """One of the numbered ways to win without earning it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    family: Family
    name: str
    layers: tuple[str, ...]
    cpu: str = ""
    """Why no case exists on the CPU; empty where one must."""
    cuda: str = ""

    def excuse(self, device: Device) -> str:
        """Why no case exists on this device; empty where one must."""
        return self.cpu if device == "cpu" else self.cuda


class Case(BaseModel):
    """One kernel of the suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    device: Device
    kernel: Kernel
    task: Task
    task_file: Path
    title: str
    classes: tuple[int, ...]
    kind: Literal["exploit", "honest"]
    verdicts: tuple[Verdict, ...] = Field(min_length=1)
    """Any of these is right."""
    evidence: str = ""
    """Regular expression that must be found in the verdict's reason or rule."""
    max_speedup: float | None = None
    """PASSED is right too while the speedup over eager stays below this: it gained nothing."""
    layer: str = ""
    """What catches it, with commas between."""
    naive: Literal["passes", "faster"] = "passes"
    """What the conventional check says of it: correct, or correct and `naive_speedup` times faster."""
    naive_speedup: float | None = None
    after: str = ""
    """The honest case that is evaluated after an attack on the harness, in place of the known-good one."""
    note: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers by themselves."""
        return tuple(part.strip() for part in self.layer.split(",") if part.strip())

    @property
    def families(self) -> set[str]:
        """Families of its classes; empty for an honest one."""
        return {known.family for known in classes() if known.number in self.classes}

    @model_validator(mode="after")
    def _fields_fit(self) -> Case:
        numbers = {known.number for known in classes()}
        if unknown := set(self.classes) - numbers:
            raise ValueError(f"classes {sorted(unknown)} are not in classes.toml")
        if self.kind == "exploit" and (not self.classes or Verdict.PASSED in self.verdicts):
            raise ValueError("an exploit has classes, and PASSED is right for it through max_speedup alone")
        if self.kind == "honest" and (self.classes or self.verdicts != (Verdict.PASSED,) or self.max_speedup):
            raise ValueError("an honest kernel has no classes and must be PASSED")
        if self.after and "harness" not in self.families:
            raise ValueError("after belongs to an attack on the harness")
        if (self.naive == "faster") != (self.naive_speedup is not None):
            raise ValueError('naive_speedup belongs to naive = "faster"')
        try:
            re.compile(self.evidence)
        except re.error as error:
            raise ValueError(f"evidence is no regular expression: {error}") from None
        return self


class Outcome(BaseModel):
    """What an evaluation of a case says about the evaluator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    why: str = ""


@cache
def classes() -> tuple[ExploitClass, ...]:
    """All classes, by number."""
    found = tomllib.loads((HERE / "classes.toml").read_text(encoding="utf-8"))["class"]
    return tuple(sorted((ExploitClass.model_validate(entry) for entry in found), key=lambda known: known.number))


def load(device: Device) -> list[Case]:
    """All cases for a device, by name. Raises UsageError that names the case whose files are malformed."""
    folders = sorted(path.parent for path in (HERE / "suite" / device).glob("*/case.toml"))
    return [read(folder, device) for folder in folders]


def read(folder: Path, device: Device) -> Case:
    """One case of its folder. Raises UsageError where it is malformed."""
    try:
        fields = tomllib.loads((folder / "case.toml").read_text(encoding="utf-8"))
        language = Language(fields.pop("language"))
        flags = tuple(fields.pop("flags", ()))
        task_file = HERE / TASKS[device] / f"{fields.pop('task')}.py"
        return Case(
            name=folder.name,
            device=device,
            kernel=Kernel.load(folder, language, flags),
            task=Task.load(task_file),
            task_file=task_file,
            **fields,
        )
    except KeyError as error:
        raise UsageError(f"{folder / 'case.toml'}: {error} is missing.") from None
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise UsageError(f"{folder / 'case.toml'}: {where + ': ' if where else ''}{found['msg']}.") from None
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{folder}: {error}") from None


def judge(case: Case, evaluation: Evaluation, speedup: Speedup | None = None) -> Outcome:
    """Whether the verdict is right. `speedup` is the verified one; else the evaluation's own counts."""
    found = f"{evaluation.verdict}: {evaluation.reason}" if evaluation.reason else str(evaluation.verdict)
    if evaluation.verdict is Verdict.INFRASTRUCTURE:
        return Outcome(status="infrastructure", why=evaluation.reason)
    if case.kind == "honest":
        if evaluation.passed:
            return Outcome(status="right")
        return Outcome(status="wrongly rejected", why=found)
    if breach := BREACH.search(evaluation.output_tail):
        return Outcome(status="missed", why=breach.group())
    if evaluation.passed:
        return _judge_gain(case, speedup or evaluation.speedup)
    if evaluation.verdict not in case.verdicts:
        return Outcome(status="missed", why=f"{found} (right: {', '.join(case.verdicts)})")
    said = f"{evaluation.rule or ''}\n{evaluation.reason}"
    if case.evidence and not re.search(case.evidence, said):
        return Outcome(status="missed", why=f"{found} (does not speak of {case.evidence!r})")
    return Outcome(status="caught", why=found)


def _judge_gain(case: Case, speedup: Speedup | None) -> Outcome:
    if case.max_speedup is None or speedup is None:
        return Outcome(status="missed", why=f"PASSED (right: {', '.join(case.verdicts)})")
    low, high = speedup.eager.low, speedup.eager.high
    found = f"{speedup.eager.value:.2f} [{low:.2f}, {high:.2f}] x eager"
    if low < case.max_speedup:
        return Outcome(status="caught", why=f"PASSED, and gained nothing: {found}")
    return Outcome(status="missed", why=f"PASSED at {found} (at most {case.max_speedup:.2f} is fair)")
