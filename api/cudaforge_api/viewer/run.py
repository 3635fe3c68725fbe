"""One run, as its page shows it: verdict and headline numbers, curve, time line, rounds, what it waits for.

Reads what the page needs and no more: of a hundred rounds neither prompts nor kernels nor raw samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cudaforge import words
from cudaforge.describe import all_events, attempt_output, eager_us, pending_item, tried, verification_of
from cudaforge.evaluation import Baseline, Interval, Verification
from cudaforge.shapes import AttemptOutput, PendingItem, Summary
from cudaforge.trace import (
    Attempt,
    AttemptFinished,
    BaselineMeasured,
    Note,
    Plan,
    Run,
    RunState,
    StageStarted,
    StoredEvent,
    now,
)
from cudaforge_api.viewer.islands import Best, Curve, CurveRound, Timeline, Verified
from cudaforge_api.viewer.timeline import timeline

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

MOST_NOTES = 30
UNDER_WAY = (RunState.RUNNING, RunState.QUEUED, RunState.SUSPENDED)


@dataclass(frozen=True)
class Headline:
    """What came out of a run, or how far it is."""

    state: str
    """A word, also a class of the style sheet: verified, no-win, running, queued, waiting, stopped, failed."""
    title: str
    eager: Interval | None = None
    compile: Interval | None = None
    verified: bool = False
    """Measured in fresh processes beside a control, whatever came of it; else by a screening."""
    share_of_floor: float | None = None
    time_us: float | None = None
    eager_us: float | None = None
    why: str = ""
    warning: str = ""
    noise: Interval | None = None
    """The reference against itself."""
    processes: int = 0


@dataclass(frozen=True)
class Round:
    """A line of the table of rounds."""

    attempt: AttemptOutput
    tried: str
    best: bool

    @property
    def failed(self) -> bool:
        """No reply could be parsed: there is no kernel."""
        return self.attempt.verdict is None and bool(self.attempt.reply_error)

    @property
    def kept(self) -> Literal["", "kept", "missed"]:
        """Whether the measured gain reached the one that the Judge predicted."""
        predicted, measured = self.attempt.predicted_gain, self.attempt.measured_gain
        if predicted is None or measured is None:
            return ""
        return "kept" if measured >= predicted else "missed"


@dataclass
class RunPage:
    """All of it."""

    run: Run
    headline: Headline
    summary: Summary
    baseline: BaselineMeasured | None
    flags: tuple[str, ...]
    """What admission found of the task: a reader of its numbers must know."""
    rounds: list[Round]
    curve: Curve
    timeline: Timeline | None
    notes: list[Note]
    stage: str
    """What is under way."""
    pending: PendingItem | None
    last_event: int
    may_reply: bool = False
    queued: bool = False
    """It is a job of the service: answered, it goes on by itself."""
    error: str = ""
    """Why a reply was refused."""
    text: str = ""
    """The reply that was refused."""

    @property
    def under_way(self) -> bool:
        """Whether anything can still happen by itself: then the page follows it."""
        return self.run.state in UNDER_WAY

    @property
    def prompt(self) -> str:
        """The prompt as one text, to be copied into a model's window."""
        if self.pending is None:
            return ""
        if len(self.pending.messages) == 1:
            return self.pending.messages[0].content
        return "\n\n".join(f"---- {m.role} ----\n{m.content}" for m in self.pending.messages)


def newest_event(record: SqliteStore, run_id: str) -> int:
    """Asked before a run is read: what comes meanwhile is shown once more, never missed."""
    newest = record.last_event(run_id)
    return newest.id if newest else 0


def run_page(record: SqliteStore, run: Run, last_event: int = 0, *, exported: bool = False) -> RunPage:
    """The page of a run. `last_event`: its newest_event before it was read; `exported`: its rounds are in the same
    file."""
    events = list(all_events(record, run.id))
    attempts = record.attempts(run.id)
    summary = record.summary(run.id)
    assert summary is not None  # the run is there
    baseline = next((e.event for e in events if isinstance(e.event, BaselineMeasured)), None)
    verification = verification_of(record, run)
    best = _best(run, attempts, events)
    rounds = [_round(attempt, attempt.id == best) for attempt in attempts]
    stored = record.result(f"{run.id}/baseline/0")
    return RunPage(
        run=run,
        headline=headline(run, verification, next((a for a in attempts if a.id == best), None)),
        summary=summary,
        baseline=baseline,
        flags=stored.flags if isinstance(stored, Baseline) else (),
        rounds=rounds,
        curve=curve(run, attempts, baseline, exported),
        timeline=timeline(events, now() if run.state in UNDER_WAY else None),
        notes=[e.event for e in events if isinstance(e.event, Note)][-MOST_NOTES:],
        stage=_stage(run, events),
        pending=pending_item(record, run) if run.state is RunState.SUSPENDED else None,
        last_event=last_event,
    )


def headline(run: Run, verification: Verification | None, best: Attempt | None) -> Headline:
    """Verdict and numbers, in the words of the terminal."""
    outcome = run.outcome
    found = verification.evaluation if verification else None
    measured: dict[str, Any] = {
        "share_of_floor": found.share_of_floor if found else None,
        "time_us": found.time_us if found else None,
        "eager_us": eager_us(found) if found else None,
        "noise": verification.aa if verification else None,
        "processes": verification.processes if verification else 0,
        "warning": words.noise_warning(verification) if verification else "",
    }
    if run.state is RunState.DONE and outcome is not None:
        speedup = outcome.speedup
        if outcome.win and speedup is not None:
            return Headline(
                "verified", "verified", speedup.eager, speedup.compile, True, why=outcome.reason, **measured
            )
        why = "No kernel was verified to be faster than eager PyTorch"
        why += f" ({outcome.reason})." if outcome.reason else "."
        if verification:
            why += f" {words.why_no_win(verification)}"
        eager = speedup.eager if speedup else None
        over_compile = speedup.compile if speedup else None
        return Headline("no-win", "no win found", eager, over_compile, verification is not None, why=why, **measured)
    titles = {
        RunState.QUEUED: ("queued", "waits for a worker", ""),
        RunState.RUNNING: ("running", "running", ""),
        RunState.SUSPENDED: ("waiting", "waiting", f"Waits for {run.waiting_for}."),
        RunState.STOPPED: ("stopped", "stopped", "Stopped before its end; it can be resumed."),
        RunState.FAILED: ("failed", "failed", run.error),
        RunState.DONE: ("no-win", "no win found", run.error),
    }
    state, title, why = titles[run.state]
    if run.state is RunState.STOPPED and run.head is not None:
        title, why = "between steps", "A session: its next step is a person's, or `cudaforge resume` goes on by itself."
    speedup = best.speedup if best else None
    return Headline(
        state,
        title,
        speedup.eager if speedup else None,
        speedup.compile if speedup else None,
        time_us=best.time_us if best else None,
        why=why,
    )


def curve(run: Run, attempts: list[Attempt], baseline: BaselineMeasured | None, exported: bool = False) -> Curve:
    """Speedup over eager by round, and what it is measured against."""
    rounds: list[CurveRound] = []
    best: list[Best] = []
    for attempt in attempts:
        speedup = attempt.speedup.eager if attempt.speedup else None
        rounds.append(
            CurveRound(
                n=attempt.round,
                verdict=attempt.verdict.value if attempt.verdict else None,
                speedup=speedup.value if speedup else None,
                low=speedup.low if speedup else None,
                high=speedup.high if speedup else None,
                href=f"#round-{attempt.round}" if exported else f"/runs/{run.id}/rounds/{attempt.round}",
                title=words.one_line(_why(attempt), 160),
            )
        )
        if speedup and (not best or speedup.value >= best[-1].speedup):
            best.append(Best(n=attempt.round, speedup=speedup.value))
        elif best:
            best.append(Best(n=attempt.round, speedup=best[-1].speedup))
    outcome = run.outcome
    verified = None
    if outcome and outcome.win and outcome.speedup:
        number = next((a.round for a in attempts if a.id == outcome.best), None)
        eager = outcome.speedup.eager
        verified = Verified(n=number, speedup=eager.value, low=eager.low, high=eager.high)
    return Curve(
        rounds=tuple(rounds),
        best=tuple(best),
        compile=baseline.eager_us / baseline.compile_us if baseline and baseline.compile_us else None,
        light=baseline.eager_us / baseline.floor_us if baseline and baseline.floor_us else None,
        verified=verified,
    )


def _why(attempt: Attempt) -> str:
    """One line of a round: what failed, else what was tried."""
    return attempt.reply_error or attempt.reason or tried(attempt_output(attempt))


def _round(attempt: Attempt, best: bool) -> Round:
    shown = attempt_output(attempt)
    plan = isinstance(attempt.advice, Plan)
    said = tried(shown) if plan or attempt.passed else _why(attempt)
    return Round(attempt=shown, tried=words.one_line(said, 400), best=best)


def _best(run: Run, attempts: list[Attempt], events: list[StoredEvent]) -> str:
    """The attempt that is kept: the verified one, else the newest that its event calls the best."""
    if run.outcome and run.outcome.best:
        return run.outcome.best
    named = [e.event.attempt_id for e in events if isinstance(e.event, AttemptFinished) and e.event.best]
    known = {attempt.id for attempt in attempts}
    return next((each for each in reversed(named) if each in known), "")


def _stage(run: Run, events: list[StoredEvent]) -> str:
    if run.state is not RunState.RUNNING or not events:
        return ""
    event = events[-1].event
    if not isinstance(event, StageStarted):
        return ""
    where = f"round {event.round}: " if event.round >= 0 else ""
    return where + words.STAGES.get(event.stage, event.stage)
