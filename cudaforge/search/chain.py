"""`chain`: one kernel after the other. Repair what failed, revise what passed, stop when the budget is spent."""

from __future__ import annotations

from collections.abc import Sequence

from cudaforge.ports import Step
from cudaforge.trace import Action, Attempt, Budget, RunSpec, Usage

REPAIRS_IN_A_ROW = 3
"""With base `best`, this many failed repairs in a row give the line up: back to the best kernel, or a new draft."""


class ChainPolicy:
    """A single line of attempts (SearchPolicy). Pure: all it knows is handed in.

    Preset.base decides what a revision starts from. `best`: the fastest passing kernel, whatever came after it.
    `last`: the newest kernel, as in the paper; the best is only kept aside for the verification.
    """

    def next(self, spec: RunSpec, attempts: Sequence[Attempt], spent: Usage, seconds: float) -> Step:
        """The next step after the finished `attempts`; see SearchPolicy."""
        ranked = self.ranking(attempts)
        if not spec.preset.optimization and ranked:
            return Step(action="stop", reason="the first kernel that passed, and optimization is off")
        reason = _stop_reason(spec.budget, attempts, ranked, spent, seconds)
        if reason:
            return Step(action="stop", reason=reason)
        attempts = [a for a in attempts if not a.withdrawn]
        last = next((a for a in reversed(attempts) if a.kernel is not None), None)
        if last is None:
            return Step(action="draft")
        best = ranked[0] if ranked else None
        if spec.preset.base == "best" and _failed_repairs(attempts) >= REPAIRS_IN_A_ROW:
            return Step(action="revise", base=best.id) if best else Step(action="draft")
        newest = attempts[-1]
        if newest.kernel is None and newest.action is not Action.EDIT:  # an unreadable reply: the same step again
            return Step(action=newest.action.value, base=newest.base)
        if not last.passed:
            return Step(action="repair", base=last.id)
        return Step(action="revise", base=best.id if best and spec.preset.base == "best" else last.id)

    def ranking(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Passing attempts, fastest first, each kernel once (its first attempt).

        Fastest by the lower end of the speedup over eager. Not by the time: kernel and eager were measured side by
        side, so a machine that was slower in one round than in another changes both alike. The lower end, since the
        best of many noisy numbers is mostly the noisiest.
        """
        ranked: dict[str, Attempt] = {}
        for attempt in sorted(attempts, key=lambda a: a.round):
            if attempt.passed and attempt.kernel is not None and attempt.speedup is not None:
                ranked.setdefault(attempt.kernel, attempt)
        return sorted(ranked.values(), key=lambda a: (-_speedup(a), a.round))


def _stop_reason(
    budget: Budget, attempts: Sequence[Attempt], ranked: Sequence[Attempt], spent: Usage, seconds: float
) -> str:
    """Why no further round begins, or "".

    Money and time are limits, not targets: a round that would probably exceed them is not begun, judged by the
    mean of the rounds so far. Of the time, one more round's worth is reserved for the verification.
    """
    count = len(attempts)
    if budget.target_speedup is not None and ranked:
        best = ranked[0].speedup
        if best is not None and best.eager.value >= budget.target_speedup:
            return f"target {budget.target_speedup:g}x reached"
    if count >= budget.rounds:
        return f"{count} {'round' if count == 1 else 'rounds'} spent"
    if budget.patience is not None and _rounds_without_gain(attempts) >= budget.patience:
        return f"no better kernel in {budget.patience} rounds"
    usd = spent.usd or 0.0
    if budget.usd is not None and usd + (usd / count if count else 0.0) > budget.usd:
        return f"${usd:.2f} of ${budget.usd:.2f} spent, another round would exceed it"
    if budget.seconds is not None and seconds + 2 * _round_seconds(attempts, seconds) >= budget.seconds:
        return f"{seconds:.0f} s of {budget.seconds:.0f} s spent, the rest is kept for the verification"
    return ""


def _round_seconds(attempts: Sequence[Attempt], seconds: float) -> float:
    """Mean seconds of a round. Waiting for a person counts in an attempt's dates but not in `seconds`: the lesser."""
    if not attempts:
        return 0.0
    dated = sum((a.finished - a.started).total_seconds() for a in attempts if a.finished is not None)
    return min(dated, seconds) / len(attempts)


def _rounds_without_gain(attempts: Sequence[Attempt]) -> int:
    """Rounds since the last one that beat all before it, or since the start."""
    best, rounds = 0.0, 0
    for attempt in attempts:
        rounds += 1
        if attempt.passed and _speedup(attempt) > best:
            best, rounds = _speedup(attempt), 0
    return rounds


def _speedup(attempt: Attempt) -> float:
    return attempt.speedup.eager.low if attempt.speedup else 0.0


def _failed_repairs(attempts: Sequence[Attempt]) -> int:
    """How many of the newest attempts are repairs that failed, in a row."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.action is not Action.REPAIR or attempt.passed:
            break
        count += 1
    return count
