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
from cudaforge.trace import Action, Attempt, Message, Plan, Preset
from cudaforge_profiling.types import Device
from cudaforge_prompts import example, render
from cudaforge_prompts.text import factor, time

Call = Literal["draft", "repair", "revise", "diagnose", "advise"]


@dataclass(frozen=True)
class HistoryEntry:
    """One earlier attempt in a line."""

    round: int
    action: Action
    verdict: Verdict | None
    """None where no reply could be parsed."""
    summary: str = ""
    """What went wrong: a verdict's reason, why a reply could not be read. Untrusted text."""
    tried: str = ""
    """What the Judge said: a plan's method, or the critical issue that a repair was to mend; else a person's hint.
    Untrusted text."""
    time_us: float | None = None
    speedup: float | None = None
    """Over eager."""
    predicted_gain: float | None = None
    measured_gain: float | None = None

    @classmethod
    def of(cls, attempt: Attempt) -> HistoryEntry:
        """What is worth telling of a finished attempt."""
        advice = attempt.advice
        return cls(
            round=attempt.round,
            action=attempt.action,
            verdict=attempt.verdict,
            summary=attempt.reason or attempt.reply_error,
            tried=advice.method if isinstance(advice, Plan) else advice.critical_issue if advice else attempt.hint,
            time_us=attempt.time_us,
            speedup=attempt.speedup.eager.value if attempt.speedup else None,
            predicted_gain=attempt.predicted_gain,
            measured_gain=attempt.measured_gain,
        )

    def text(self) -> str:
        """One line of numbers, then what was tried and what went wrong, a line each. Untrusted: to be fenced."""
        facts = [f"round {self.round}, {self.action}: {self.verdict or 'no usable reply'}"]
        facts += [time(self.time_us)] if self.time_us else []
        facts += [f"{factor(self.speedup)} over eager"] if self.speedup else []
        facts += [f"predicted gain {factor(self.predicted_gain)}"] if self.predicted_gain else []
        facts += [f"measured gain {factor(self.measured_gain)}"] if self.measured_gain else []
        lines = [", ".join(facts)]
        label = "to mend" if self.action is Action.REPAIR else "tried"
        lines += [f"  {label}: {_line(self.tried, 120)}"] if self.tried else []
        lines += [f"  result: {_line(self.summary, 280)}"] if self.summary else []
        return "\n".join(lines)


def _line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, cut between words where there are any."""
    flat = " ".join(text.split())
    if len(flat) <= limit:
        return flat
    cut = flat[: limit - 4]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[limit // 2 :] else cut} ..."


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
        history = self.history[-self.preset.history :] if self.preset.history else ()
        context: dict[str, object] = {
            "task": self.task,
            "language": self.language.value,
            "device": self.device,
            "baseline": self.baseline,
            "history_text": "\n".join(entry.text() for entry in history),
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
