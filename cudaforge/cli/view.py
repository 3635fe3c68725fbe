"""A run that is followed, drawn for a terminal: the live display, its plain-line form and `cudaforge show`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cudaforge import words
from cudaforge.describe import tried
from cudaforge.follow import RunView, reference_line, spending
from cudaforge.shapes import AttemptOutput
from cudaforge.trace import (
    AttemptFinished,
    BaselineMeasured,
    Note,
    Run,
    RunResumed,
    RunSuspended,
    StageStarted,
    StoredEvent,
)

LEAST_TRIED, MOST_TRIED = 12, 88
"""Columns for what a round tried: with fewer it is left out."""


def header(run: Run) -> Table:
    """Task, device, models and evaluator of a run."""
    spec = run.spec
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    coder, judge = words.short_model(spec.coder), words.short_model(spec.judge)
    models = coder if coder == judge else f"Coder {coder}, Judge {judge}"
    limits = [f"{spec.budget.rounds} rounds"]
    limits += [f"${spec.budget.usd:g}"] if spec.budget.usd else []
    limits += [words.duration(spec.budget.seconds)] if spec.budget.seconds else []
    limits += [f"until {spec.budget.target_speedup:g}x"] if spec.budget.target_speedup else []
    grid.add_row("run", run.id)
    grid.add_row("task", escape(f"{spec.task.name} ({spec.language.value})"))
    grid.add_row("device", escape(run.device.name if run.device else "not known yet"))
    grid.add_row("models", escape(models))
    grid.add_row("evaluator", escape(spec.evaluator))
    grid.add_row(
        "budget", ", ".join(limits) + (f"; preset {spec.preset.name}" if spec.preset.name != "default" else "")
    )
    return grid


@dataclass(frozen=True)
class RoundsTable:
    """One row for each round; the kept one is marked.

    A narrow terminal cuts short what was tried, then leaves it out, then the comparison with torch.compile: rich by
    itself would cut every column alike, down to the number of the round.
    """

    attempts: list[AttemptOutput]
    best: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = Measurement.get(console, options.update(max_width=1000), self._table(True, 0)).maximum
        compiled = width <= options.max_width
        room = options.max_width - width - 1
        yield self._table(compiled, min(room, MOST_TRIED) if room >= LEAST_TRIED else 0)

    def _table(self, compiled: bool, tried_width: int) -> Table:
        """The table with or without `vs compile`, and with so many columns of what was tried (0: without)."""
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
        for name in ("#", "action", "verdict"):
            table.add_column(name, no_wrap=True)
        for name in ("time", "vs eager", *(["vs compile"] if compiled else []), "vs base"):
            table.add_column(name, justify="right", no_wrap=True)
        if tried_width:
            table.add_column("tried", width=tried_width, overflow="ellipsis", no_wrap=True)
        for attempt in sorted(self.attempts, key=lambda a: a.round):
            speedup = attempt.speedup
            row: list[RenderableType] = [
                Text(f"{attempt.round}★", "bold green") if attempt.id == self.best else str(attempt.round),
                attempt.action,
                verdict_text(attempt),
                words.microseconds(attempt.time_us),
                words.times(speedup.eager.value if speedup else None),
            ]
            row += [words.times(speedup.compile.value if speedup and speedup.compile else None)] if compiled else []
            row += [words.times(attempt.measured_gain)]
            row += [Text(words.one_line(tried(attempt), MOST_TRIED))] if tried_width else []
            table.add_row(*row)
        return table


def verdict_text(attempt: AttemptOutput) -> Text:
    """The verdict with its symbol; `no kernel` where no reply could be parsed, `taken back` where a person did so."""
    if attempt.verdict is None:
        if attempt.withdrawn:
            return Text("– taken back", "dim")
        return Text("✗ no kernel" if attempt.reply_error else "…", "red" if attempt.reply_error else "dim")
    symbol, style = words.SYMBOLS[attempt.verdict.value]
    return Text(f"{symbol} {attempt.verdict.value}", style)


def live_frame(view: RunView) -> RenderableType:
    """One frame of the live display."""
    attempts = list(view.attempts.values())
    parts: list[RenderableType] = [header(view.run), ""]
    if view.baseline:
        parts += [reference_line(view.baseline), ""]
    if attempts:
        parts += [RoundsTable(attempts, view.best), ""]
    best = view.attempts.get(view.best)
    if best and best.speedup:
        parts.append(
            Text(f"best so far: round {best.round}, {words.times(best.speedup.eager.value)} over eager", "green")
        )
    parts += [Text(f"note: {words.one_line(note, 120)}", "yellow") for note in view.notes[-3:]]
    parts.append(spending(view))
    if line := view.stage_line():
        parts.append(Text(line, "cyan"))
    return Group(*parts)


def plain_line(view: RunView, stored: StoredEvent) -> str:
    """The line that an event is worth where there is no terminal; empty for none."""
    event = stored.event
    match event:
        case BaselineMeasured():
            return reference_line(event)
        case StageStarted(stage="baseline" | "verify"):
            return f"{words.STAGES[event.stage]} ..."
        case StageStarted(stage="evaluate" | "coder" | "judge" | "profile"):
            return f"round {event.round}: {words.STAGES[event.stage]} ..."
        case AttemptFinished():
            attempt = view.attempts.get(event.attempt_id)
            lacking = "taken back" if attempt and attempt.withdrawn else "no kernel"
            verdict = event.verdict.value if event.verdict else lacking
            measured = ""
            if event.time_us is not None and event.speedup is not None:
                measured = f" {words.microseconds(event.time_us)}, {words.times(event.speedup.eager.value)} over eager"
            reason = f" {words.one_line(event.reason, 160)}" if event.reason else ""
            what = f" [{words.one_line(tried(attempt))}]" if attempt and tried(attempt) else ""
            return f"round {event.round}: {event.action.value}: {verdict}{measured}{reason}{what}"
        case Note():
            return f"note: {words.one_line(event.message, 200)}"
        case RunSuspended():
            return f"suspended: {words.one_line(event.message, 200)}"
        case RunResumed():
            return "resumed"
        case _:
            return ""
