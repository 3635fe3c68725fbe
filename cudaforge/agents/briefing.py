"""Briefing: what both agents know of a run, and which part of it each call may see.

`view` is the whole rule of information: the table PAPER reproduces what each call of the paper's agents sees,
FULL is ours. The switches of a preset (show_reference, show_numbers, history) add to either.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from cudaforge.evaluation import Baseline, Verdict
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task
from cudaforge.trace import Action, Message, Preset
from cudaforge_profiling.types import Device
from cudaforge_prompts import example, render

Call = Literal["draft", "repair", "revise", "diagnose", "advise"]


@dataclass(frozen=True)
class HistoryEntry:
    """One earlier attempt in a line."""

    round: int
    action: Action
    verdict: Verdict | None
    """None where no reply could be parsed."""
    summary: str = ""
    """What was tried, or what went wrong: a plan's method, a verdict's reason. Untrusted text."""
    time_us: float | None = None
    speedup: float | None = None
    """Over eager."""
    predicted_gain: float | None = None
    measured_gain: float | None = None


@dataclass(frozen=True)
class View:
    """The sections that one call shows besides the kernel and the error or advice that it is about."""

    device: bool = False
    reference: bool = False
    contract: bool = False
    """To the Judge; the Coder always sees what it has to write."""
    tolerance: bool = False
    example: bool = False
    numbers: bool = False
    """Times of baselines and kernel, speedups, the floor."""
    profile: bool = False
    hints: bool = False
    """How to read the evidence; source lines, stalls and remarks beside the bare metrics."""

    def __or__(self, other: View) -> View:
        return View(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(View)})


PAPER: dict[Call, View] = {
    "draft": View(device=True, reference=True, example=True),
    "repair": View(),
    "revise": View(device=True, tolerance=True),
    "diagnose": View(reference=True),
    "advise": View(device=True, reference=True, profile=True),
}

FULL: dict[Call, View] = {
    "draft": View(device=True, reference=True, tolerance=True, example=True, hints=True),
    "repair": View(device=True, tolerance=True, example=True, hints=True),
    "revise": View(device=True, tolerance=True, example=True, profile=True, hints=True),
    "diagnose": View(device=True, reference=True, contract=True, tolerance=True, hints=True),
    "advise": View(device=True, reference=True, contract=True, tolerance=True, profile=True, hints=True),
}

REVIEW: dict[Call, Call] = {"repair": "diagnose", "revise": "advise"}
"""The Judge's call before the Coder's: who plays both roles sees what both would."""


@dataclass(frozen=True)
class Briefing:
    """What both agents may be told of a run. `history` is in order of rounds, oldest first."""

    task: Task
    language: Language
    device: Device
    baseline: Baseline
    preset: Preset
    history: tuple[HistoryEntry, ...] = ()

    @property
    def paper(self) -> bool:
        """Whether the calls see and answer what the paper's do (`paper`, and variants named `paper-...`)."""
        return self.preset.name.split("-")[0] == "paper"

    def view(self, call: Call) -> View:
        """What `call` shows under this briefing's preset."""
        table = PAPER if self.paper else FULL
        view = table[call]
        if self.preset.self_refine and call in REVIEW:
            view |= table[REVIEW[call]]
        return replace(
            view,
            reference=view.reference or self.preset.show_reference,
            numbers=view.numbers or self.preset.show_numbers,
        )

    def messages(self, role: Literal["coder", "judge"], call: Call, **more: object) -> tuple[Message, ...]:
        """The system message of `role` and the question of `call`.

        The system message holds what stays the same over a run (device, rules, example), so that servers
        which cache prefixes charge it once.
        """
        context: dict[str, object] = {
            "task": self.task,
            "language": self.language.value,
            "device": self.device,
            "baseline": self.baseline,
            "history": self.history[-self.preset.history :] if self.preset.history else (),
            "show": self.view(call),
            "self_refine": self.preset.self_refine,
            "example": example(self.language.value, self.device.kind),
            "word_limits": self.paper,
            "timed": None,
            **more,
        }
        return (
            Message(role="system", content=render(role, **context)),
            Message(role="user", content=render(call, **context)),
        )


def kernel_context(kernel: Kernel, title: str) -> dict[str, object]:
    """What the section with a kernel's sources needs."""
    return {"kernel": kernel, "kernel_files": kernel.language.file_names, "kernel_title": title}
