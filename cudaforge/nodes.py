"""The nodes of the graph: what happens in each step of a run. graph.py shows how they follow one another.

Every node may be run again at any time, after a kill or a wait: it asks, measures and tells through the Journal,
which looks in the store first, and stores what it found before it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from cudaforge.agents import coder, judge
from cudaforge.agents.briefing import Briefing, HistoryEntry
from cudaforge.errors import EvaluatorError, ReplyError, StoreError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Verification,
    VerifyRequest,
)
from cudaforge.journal import Journal
from cudaforge.kernel import Kernel
from cudaforge.ports import ChatModel, Evaluator, SearchPolicy, Step, Store
from cudaforge.trace import (
    Action,
    Attempt,
    AttemptFinished,
    BaselineMeasured,
    Diagnosis,
    Message,
    Outcome,
    Plan,
    Role,
    RunFinished,
    RunState,
    now,
)
from cudaforge_profiling.types import Profile

VERIFIED_AT_MOST = 3
"""Kernels that are verified before a run says that it found no win: the ranking rests on screenings, and on a disturbed
machine the first of them may be the luckiest and not the fastest."""


@dataclass(frozen=True)
class Context:
    """What a run works with: the adapters behind the ports, and the policy."""

    store: Store
    coder: ChatModel
    judge: ChatModel
    evaluator: Evaluator
    policy: SearchPolicy


class State(TypedDict):
    """What LangGraph keeps of a run: ids only."""

    run: str
    attempt: str
    """The round under way; "" before the first and after the last."""


class Nodes:
    """One method for each node; the rest is what they share."""

    def __init__(self, context: Context, journal: Journal) -> None:
        self.store = context.store
        self.models = {Role.CODER: context.coder, Role.JUDGE: context.judge}
        self.evaluator = context.evaluator
        self.policy = context.policy
        self.journal = journal
        self.spec = journal.run.spec

    # -- nodes ------------------------------------------------------------------------------------------------

    async def baseline(self, state: State) -> State:
        """Measures the reference: what every kernel is compared with."""
        with self.journal.stage("baseline") as stage:
            baseline = await self._baseline()
            stage.parts_s = baseline.stages_s
        self.journal.save_run(device=baseline.device)
        self.journal.emit(
            BaselineMeasured(
                run_id=state["run"],
                device=baseline.device.name,
                eager_us=baseline.eager_us,
                compile_us=baseline.compile_us,
                floor_us=baseline.floor_us,
            )
        )
        return state

    async def choose(self, state: State) -> State:
        """Opens the next round, or ends the search. The stored attempt is the decision; a round is opened once."""
        attempts = self.store.attempts(state["run"])
        head = self.journal.run.head
        if attempts and attempts[-1].finished is None:
            attempt = attempts[-1]
        else:
            step = self._step(attempts)
            if step.action == "stop":
                return {**state, "attempt": ""}
            # What a session's user built on last comes first; from then on the policy decides.
            attempt = self.open(Action(step.action), step.base) if head is None else self.open_on(head)
        if head is not None:
            self.journal.save_run(head=None)
        return {**state, "attempt": attempt.id}

    async def draft(self, state: State) -> State:
        """The Coder writes the first kernel."""
        return await self._write(state, "draft", coder.draft(await self._briefing()))

    async def diagnose(self, state: State) -> State:
        """The Judge reads what went wrong with the base."""
        if not self.spec.preset.correction or self.spec.preset.self_refine:
            return state
        kernel, evaluation, _ = self._base(state)
        messages = judge.diagnose(await self._briefing(), kernel, evaluation)
        return await self._advise(state, "diagnose", messages, judge.parse_diagnosis, judge.DIAGNOSIS_SCHEMA)

    async def repair(self, state: State) -> State:
        """The Coder mends the base."""
        kernel, evaluation, _ = self._base(state)
        attempt = self.attempt(state)
        diagnosis = attempt.advice if isinstance(attempt.advice, Diagnosis) else None
        messages = coder.repair(await self._briefing(), kernel, evaluation, diagnosis, attempt.hint)
        return await self._write(state, "repair", messages)

    async def profile(self, state: State) -> State:
        """Looks at the base with the profiler, once for each kernel. A profiler that fails never fails the run."""
        await self.look_at(self._attempt_of(self.attempt(state).base))
        return state

    async def look_at(self, base: Attempt) -> None:
        """Profiles an attempt's kernel where that was not done yet; the attempt then has the profile's key."""
        if base.profile is not None:
            return
        kernel, evaluation, _ = self._found(base)

        async def ask(key: str) -> Profile:
            return await self.evaluator.profile(
                ProfileRequest(
                    key=key,
                    task=self.spec.task,
                    options=self.spec.options,
                    kernel=kernel,
                    metric_set=self.spec.preset.metrics,
                    time_us=evaluation.first_us,
                )
            )

        with self.journal.stage("profile", base) as stage:
            try:
                key, profile = await self.journal.measure(base.id, "profile", Profile, ask)
            except EvaluatorError:
                return  # the journal has noted why; the agents see the times alone
            stage.parts_s = {"profile": profile.seconds}
        self.store.save_attempt(base.model_copy(update={"profile": key}))

    async def advise(self, state: State) -> State:
        """The Judge reads the base's numbers and plans one change."""
        if self.spec.preset.self_refine:
            return state
        messages = judge.advise(await self._briefing(), *self._base(state))
        return await self._advise(state, "advise", messages, judge.parse_plan, judge.plan_schema(self.spec.preset))

    async def revise(self, state: State) -> State:
        """The Coder makes the base faster."""
        attempt = self.attempt(state)
        plan = attempt.advice if isinstance(attempt.advice, Plan) else None
        messages = coder.revise(await self._briefing(), *self._base(state), plan, attempt.hint)
        return await self._write(state, "revise", messages)

    async def evaluate(self, state: State) -> State:
        """Builds, checks and times the round's kernel; one that was evaluated before keeps its evaluation."""
        attempt = self.attempt(state)
        if attempt.kernel is None:
            self.close(attempt)
            return state
        kernel = self._kernel(attempt)

        async def ask(key: str) -> Evaluation:
            return await self.evaluator.evaluate(
                EvaluateRequest(key=key, task=self.spec.task, options=self.spec.options, kernel=kernel)
            )

        earlier = self.store.attempts(state["run"])[: attempt.round]
        twin = next((a for a in earlier if a.kernel == attempt.kernel and a.evaluation), None)
        with self.journal.stage("evaluate", attempt) as stage:
            owner = twin or attempt
            key, evaluation = await self.journal.measure(owner.id, "evaluate", Evaluation, ask)
            if twin is None:
                stage.parts_s = evaluation.stages_s
            else:
                self.journal.note(
                    f"Round {attempt.round} wrote the kernel of round {twin.round} again: its evaluation stands."
                )
        self._finish(attempt.model_copy(update={"evaluation": key}), evaluation)
        return state

    async def verify(self, state: State) -> State:
        """Measures the best again, in fresh processes; where it is wrong or no win, the next best. Ends the run."""
        attempts = self.store.attempts(state["run"])
        # Asked again, as state holds no texts: what stopped the search still does, nothing spent comes back.
        reason = self._step(attempts).reason or "finished by hand"
        ranked = self.policy.ranking(attempts)
        outcome = Outcome(reason=reason if ranked else f"{reason}; no kernel passed")
        measured = 0
        for attempt in ranked:
            key, verification = await self._verification(attempt)
            if not verification.evaluation.passed:
                why = verification.evaluation.reason
                self.journal.note(f"Round {attempt.round} was not confirmed by the verification: {why}", "warning")
                continue
            speedup = verification.evaluation.speedup
            verified = {"verification": key, "win": verification.win, "speedup": speedup}
            if verification.win:
                outcome = outcome.model_copy(update=verified | {"best": attempt.id, "kernel": attempt.kernel})
                break
            if outcome.speedup is None or (speedup and speedup.eager.value > outcome.speedup.eager.value):
                outcome = outcome.model_copy(update=verified)
            measured += 1
            if measured == VERIFIED_AT_MOST:
                break
        self.journal.save_run(state=RunState.DONE, outcome=outcome)
        self.done()
        return state

    # -- what the nodes and a session share -------------------------------------------------------------------

    def open(self, action: Action, base: str | None, **fields: Any) -> Attempt:
        """Opens the next round."""
        number = len(self.store.attempts(self.journal.run_id))
        run_id = self.journal.run_id
        opened = {"id": f"{run_id}.{number}", "run_id": run_id, "round": number, "action": action, "base": base}
        attempt = Attempt.model_validate(opened | fields)
        self.store.save_attempt(attempt)
        return attempt

    def open_on(self, head: str) -> Attempt:
        """Opens the round that builds on an evaluated attempt: a revision, a repair, or a draft where head is ""."""
        if not head:
            return self.open(Action.DRAFT, None)
        return self.open(Action.REVISE if self._attempt_of(head).passed else Action.REPAIR, head)

    def close(self, attempt: Attempt) -> None:
        """Closes a round that has no kernel, or whose kernel is not to be evaluated."""
        self._finish(attempt, None)

    # -- what the nodes share ---------------------------------------------------------------------------------

    async def _write(
        self, state: State, purpose: Literal["draft", "repair", "revise"], messages: tuple[Message, ...]
    ) -> State:
        """Has the Coder write the round's kernel. A reply that cannot be read twice leaves a round without kernel."""
        attempt = self.attempt(state)
        with self.journal.stage("coder", attempt) as stage:
            try:
                kernel = await self.journal.converse(
                    self.models[Role.CODER],
                    attempt,
                    Role.CODER,
                    purpose,
                    messages,
                    lambda text: coder.parse_kernel(text, self.spec.language),
                )
            except ReplyError as error:
                changes: dict[str, Any] = {"reply_error": error.message}
            else:
                self.store.save_kernel(kernel)
                changes = {"kernel": kernel.id}
            stage.usage = self.journal.usage_of(attempt, Role.CODER)
        self.store.save_attempt(attempt.model_copy(update=changes))
        return state

    async def _advise(
        self,
        state: State,
        purpose: Literal["diagnose", "advise"],
        messages: tuple[Message, ...],
        parse: Callable[[str], Diagnosis | Plan],
        schema: dict[str, Any],
    ) -> State:
        """Has the Judge advise on the round's base. Without readable advice the Coder goes on alone."""
        attempt = self.attempt(state)
        with self.journal.stage("judge", attempt) as stage:
            try:
                advice = await self.journal.converse(
                    self.models[Role.JUDGE], attempt, Role.JUDGE, purpose, messages, parse, schema
                )
            except ReplyError as error:
                self.journal.note(
                    f"Round {attempt.round} goes on without advice, the Judge's reply cannot be read: {error.message}",
                    "warning",
                )
            else:
                gain = advice.predicted_gain if isinstance(advice, Plan) else None
                self.store.save_attempt(attempt.model_copy(update={"advice": advice, "predicted_gain": gain}))
            stage.usage = self.journal.usage_of(attempt, Role.JUDGE)
        return state

    async def _verification(self, attempt: Attempt) -> tuple[str, Verification]:
        kernel = self._kernel(attempt)

        async def ask(key: str) -> Verification:
            return await self.evaluator.verify(
                VerifyRequest(key=key, task=self.spec.task, options=self.spec.options, kernel=kernel)
            )

        with self.journal.stage("verify", attempt) as stage:
            key, verification = await self.journal.measure(attempt.id, "verify", Verification, ask)
            stage.parts_s = verification.evaluation.stages_s
        return key, verification

    async def _baseline(self) -> Baseline:
        async def ask(key: str) -> Baseline:
            return await self.evaluator.baseline(
                BaselineRequest(key=key, task=self.spec.task, options=self.spec.options)
            )

        _, baseline = await self.journal.measure(self.journal.run_id, "baseline", Baseline, ask)
        return baseline

    def done(self) -> None:
        """Says that the run has ended; said once, also where a kill came between the end and the saying."""
        outcome = self.journal.run.outcome or Outcome()
        self.journal.emit(
            RunFinished(
                run_id=self.journal.run_id,
                state=RunState.DONE,
                win=outcome.win,
                reason=outcome.reason,
                speedup=outcome.speedup,
            )
        )

    def _step(self, attempts: list[Attempt]) -> Step:
        return self.policy.next(self.spec, attempts, self.journal.spent, self.journal.seconds)

    def _finish(self, attempt: Attempt, evaluation: Evaluation | None) -> None:
        """Closes a round with what was found out about its kernel (None: there is no kernel)."""
        changes: dict[str, Any] = {"finished": attempt.finished or now()}
        if evaluation is not None:
            base = self.store.attempt(attempt.base) if attempt.base else None
            before, after = base.speedup if base else None, evaluation.speedup
            changes |= {
                "verdict": evaluation.verdict,
                "reason": evaluation.reason,
                "speedup": evaluation.speedup,
                "time_us": evaluation.time_us,
                # By speedups, each paired with eager in its own session: the machine differs between sessions.
                "measured_gain": after.eager.value / before.eager.value if before and after else None,
            }
        attempt = attempt.model_copy(update=changes)
        self.store.save_attempt(attempt)
        ranked = self.policy.ranking(self.store.attempts(attempt.run_id))
        self.journal.emit(
            AttemptFinished(
                run_id=attempt.run_id,
                attempt_id=attempt.id,
                round=attempt.round,
                action=attempt.action,
                verdict=attempt.verdict,
                reason=attempt.reason or attempt.reply_error,
                time_us=attempt.time_us,
                speedup=attempt.speedup,
                best=bool(ranked) and ranked[0].id == attempt.id,
            )
        )

    async def _briefing(self) -> Briefing:
        """What every agent is told, whatever the question."""
        baseline = await self._baseline()
        attempts = self.store.attempts(self.journal.run_id) if self.spec.preset.history else []
        return Briefing(
            task=self.spec.task,
            language=self.spec.language,
            device=baseline.device,
            baseline=baseline,
            preset=self.spec.preset,
            history=tuple(HistoryEntry.of(a) for a in attempts if a.finished is not None and not a.withdrawn),
        )

    def attempt(self, state: State) -> Attempt:
        """The round under way."""
        return self._attempt_of(state["attempt"])

    def _attempt_of(self, attempt_id: str | None) -> Attempt:
        attempt = self.store.attempt(attempt_id) if attempt_id else None
        if attempt is None:
            raise StoreError(f"Attempt {attempt_id} is not in the store.")
        return attempt

    def _kernel(self, attempt: Attempt) -> Kernel:
        kernel = self.store.kernel(attempt.kernel) if attempt.kernel else None
        if kernel is None:
            raise StoreError(f"The kernel of attempt {attempt.id} is not in the store.")
        return kernel

    def _base(self, state: State) -> tuple[Kernel, Evaluation, Profile | None]:
        """What the round builds on: kernel, evaluation, and its profile where there is one."""
        return self._found(self._attempt_of(self.attempt(state).base))

    def _found(self, base: Attempt) -> tuple[Kernel, Evaluation, Profile | None]:
        """An evaluated attempt's kernel, evaluation, and its profile where there is one."""
        evaluation = self.store.result(base.evaluation) if base.evaluation else None
        if not isinstance(evaluation, Evaluation):
            raise StoreError(f"The evaluation of attempt {base.id} is not in the store.")
        profile = self.store.result(base.profile) if base.profile else None
        return self._kernel(base), evaluation, profile if isinstance(profile, Profile) else None
