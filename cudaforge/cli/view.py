"""A run as a reader follows it: a state made of "events after id N" and a few look-ups, drawn as tables.

The live display, its plain-line form and `cudaforge show` of a finished run all come from here, so what is watched
and what is replayed cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cudaforge import wiring, words
from cudaforge.describe import all_events, attempt_output, spent, tried
from cudaforge.ports import Store
from cudaforge.shapes import AttemptOutput, Tokens
from cudaforge.trace import (
    AttemptFinished,
    BaselineMeasured,
    Note,
    Run,
    RunFinished,
    RunResumed,
    RunSuspended,
    StageFinished,
    StageStarted,
    StoredEvent,
    now,
)

LEAST_TRIED, MOST_TRIED = 12, 88
"""Columns for what a round tried: with fewer it is left out."""


@dataclass
class RunView:
    """What is known of a run after the events up to `last_event`."""

    store: Store
    run: Run
    last_event: int = 0
    attempts: dict[str, AttemptOutput] = field(default_factory=dict)
    best: str = ""
    stage: str = ""
    stage_round: int = -1
    stage_since: datetime | None = None
    baseline: BaselineMeasured | None = None
    tokens: Tokens = field(default_factory=Tokens)
    usd: float | None = 0.0
    notes: list[str] = field(default_factory=list)

    def catch_up(self) -> list[StoredEvent]:
        """Reads the events that are new, takes them in, and returns them."""
        new = list(all_events(self.store, self.run.id, self.last_event))
        for stored in new:
            self._take(stored)
        if new:
            self.run = self.store.run(self.run.id) or self.run
        if any(_tells_of_a_call(stored) for stored in new):  # calls hold whole prompts: not read without need
            self.tokens, self.usd = spent(self.store.calls(self.run.id))
        return new

    def _take(self, stored: StoredEvent) -> None:
        self.last_event = stored.id
        event = stored.event
        match event:
            case StageStarted():
                self.stage, self.stage_round, self.stage_since = event.stage, event.round, stored.at
                self._look_up(event.attempt_id)
            case StageFinished():
                self.stage = ""
                self._look_up(event.attempt_id)
            case BaselineMeasured():
                self.baseline = event
            case AttemptFinished():
                self._look_up(event.attempt_id)
                if event.best:
                    self.best = event.attempt_id
            case Note():
                self.notes.append(event.message)
            case RunSuspended() | RunFinished() | RunResumed():
                self.stage = ""

    def _look_up(self, attempt_id: str) -> None:
        if attempt_id and (attempt := self.store.attempt(attempt_id)):
            self.attempts[attempt_id] = attempt_output(attempt)

    def stage_line(self) -> str:
        """The stage that is under way and for how long; empty between stages."""
        if not self.stage or self.stage_since is None:
            return ""
        where = f"round {self.stage_round}: " if self.stage_round >= 0 else ""
        elapsed = max(0.0, (now() - self.stage_since).total_seconds())
        return f"{where}{words.STAGES.get(self.stage, self.stage)} … {words.duration(elapsed)}"


def _tells_of_a_call(stored: StoredEvent) -> bool:
    """Whether tokens or dollars may have changed."""
    return isinstance(stored.event, StageFinished | RunSuspended | RunFinished | Note)


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


def reference_line(baseline: BaselineMeasured | None) -> str:
    """The reference's times on one line; empty while they are not known."""
    if baseline is None:
        return ""
    parts = [f"eager {words.microseconds(baseline.eager_us)}"]
    parts.append(f"torch.compile {words.microseconds(baseline.compile_us) if baseline.compile_us else 'not available'}")
    if baseline.floor_us:
        parts.append(f"floor {words.microseconds(baseline.floor_us)}")
    return "reference by itself: " + ", ".join(parts)


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


def spending(view: RunView) -> str:
    """Tokens and dollars on one line; of recordings and people there are none."""
    tokens, usd = view.tokens, view.usd
    if not any(wiring.is_networked(model) for model in (view.run.spec.coder, view.run.spec.judge)):
        return "no model was paid"
    cached = f" ({words.count(tokens.cached)} cached)" if tokens.cached else ""
    cost = "price unknown" if usd is None else words.dollars(usd)
    return f"tokens: {words.count(tokens.input)} in{cached}, {words.count(tokens.output)} out; {cost}"


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
