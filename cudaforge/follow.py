"""A run as a reader follows it: a state made of "events after id N" and a few look-ups.

The terminal's live display, a notebook's and `cudaforge show` of a finished run all come from here, so what is watched
and what is replayed cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cudaforge import words
from cudaforge.describe import all_events, attempt_output, spent
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


def reference_line(baseline: BaselineMeasured | None) -> str:
    """The reference's times on one line; empty while they are not known."""
    if baseline is None:
        return ""
    parts = [f"eager {words.microseconds(baseline.eager_us)}"]
    parts.append(f"torch.compile {words.microseconds(baseline.compile_us) if baseline.compile_us else 'not measured'}")
    if baseline.floor_us:
        parts.append(f"floor {words.microseconds(baseline.floor_us)}")
    return "reference by itself: " + ", ".join(parts)


def spending(view: RunView) -> str:
    """Tokens and dollars on one line; of recordings and people there are none."""
    from cudaforge import wiring

    tokens, usd = view.tokens, view.usd
    if not any(wiring.is_networked(model) for model in (view.run.spec.coder, view.run.spec.judge)):
        return "no model was paid"
    cached = f" ({words.count(tokens.cached)} cached)" if tokens.cached else ""
    cost = "price unknown" if usd is None else words.dollars(usd)
    return f"tokens: {words.count(tokens.input)} in{cached}, {words.count(tokens.output)} out; {cost}"
