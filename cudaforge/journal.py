"""Doing things once: every question, measurement and event of a run is looked up before it is made.

The graph's nodes are written as if nothing ever went wrong; this module makes it safe to run any of them again
after a `kill -9`. A question to a model is stored as a Call before it is sent and again with its reply; a
measurement is stored under its key before anybody builds on it. So whatever was fully received is found here, and
only what was cut off in flight is done again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import nvtx

from cudaforge.agents import reask
from cudaforge.errors import EvaluatorError, ModelError, ReplyError, StoreError, Suspended
from cudaforge.evaluation import Evaluation, Result, Verdict, Verification
from cudaforge.ports import ChatModel, ChatRequest, Store
from cudaforge.trace import (
    Attempt,
    AttemptFinished,
    Call,
    CallState,
    Event,
    Message,
    Note,
    Role,
    Run,
    RunFinished,
    RunState,
    StageFinished,
    StageStarted,
    Usage,
    now,
    total_usage,
)

MEASUREMENT_TRIES = 3
"""A failure of ours is met with a fresh try, twice; then the run stops, resumable."""

_T = TypeVar("_T")
_R = TypeVar("_R", bound=Result)
Purpose = Literal["draft", "repair", "revise", "diagnose", "advise", "reask"]


@dataclass
class Stage:
    """What a stage reports when it ends; filled in while it runs."""

    parts_s: dict[str, float] = field(default_factory=dict)
    usage: Usage | None = None


class Journal:
    """The record of one run, as the nodes write and read it. One per process that drives the run."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.seconds = 0.0
        """Time spent in finished stages, over all processes; waiting for a person or a dead process is not in it."""
        self._seen: set[tuple[str, ...]] = set()
        self._failures = 0
        last = 0
        while page := store.events(run_id, after=last):
            last = page[-1].id
            for stored in page:
                self._note_down(stored.event)

    # -- the run and its events -------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run as stored."""
        run = self.store.run(self.run_id)
        if run is None:
            raise StoreError(f"Run {self.run_id} is not in the store.", "`cudaforge runs` lists those that are.")
        return run

    def save_run(self, **changes: Any) -> Run:
        """Stores the run with some fields changed, and returns it."""
        run = self.run.model_copy(update={**changes, "updated": now()})
        self.store.save_run(run)
        return run

    def emit(self, event: Event) -> None:
        """Appends an event, unless it is one that happens once and has happened (a node that runs again)."""
        identity = _identity(event)
        if identity is None or identity not in self._seen:
            self.store.append(event)
            self._note_down(event)

    def has(self, event: Event) -> bool:
        """Whether this event, or one with its identity, was appended before."""
        return _identity(event) in self._seen

    def note(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Appends a Note; the same words are said once a run."""
        self.emit(Note(run_id=self.run_id, level=level, message=message))

    @contextmanager
    def stage(self, name: str, attempt: Attempt | None = None) -> Iterator[Stage]:
        """Marks a stage with events and an NVTX range. A stage that raises does not finish: it begins again later."""
        place = {"attempt_id": attempt.id, "round": attempt.round} if attempt else {}
        self.emit(StageStarted.model_validate({"run_id": self.run_id, "stage": name, **place}))
        stage, began = Stage(), time.monotonic()
        # start/end and not push/pop: the ranges of runs that share a thread may overlap.
        mark = nvtx.start_range(f"cudaforge {name} {attempt.id if attempt else self.run_id}")
        try:
            yield stage
        finally:
            nvtx.end_range(mark)
        finished = {"seconds": time.monotonic() - began, "parts_s": stage.parts_s, "usage": stage.usage}
        self.emit(StageFinished.model_validate({"run_id": self.run_id, "stage": name, **finished, **place}))

    def _note_down(self, event: Event) -> None:
        identity = _identity(event)
        if identity is not None:
            self._seen.add(identity)
        if isinstance(event, StageFinished):
            self.seconds += event.seconds
        if isinstance(event, RunFinished) and event.state is RunState.FAILED:
            self._failures += 1

    # -- models -----------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Usage:
        """Tokens and known dollars over all calls, those booked as uncertain included."""
        return total_usage(call.usage for call in self.store.calls(self.run_id))

    def usage_of(self, attempt: Attempt, role: Role) -> Usage:
        """What one role's calls in one round have used."""
        return total_usage(
            c.usage for c in self.store.calls(self.run_id) if c.attempt_id == attempt.id and c.role is role
        )

    async def converse(
        self,
        model: ChatModel,
        attempt: Attempt,
        role: Role,
        purpose: Purpose,
        messages: Sequence[Message],
        parse: Callable[[str], _T],
        json_schema: dict[str, Any] | None = None,
    ) -> _T:
        """Asks, and where the reply cannot be parsed asks once more with what was wrong.

        Raises:
            ReplyError: the second reply could not be parsed either.
            ModelError, Suspended: see `ask`.
        """
        reply = await self.ask(model, attempt, role, purpose, messages, json_schema)
        try:
            return parse(reply)
        except ReplyError as error:
            again = reask(tuple(messages), reply, error)
        return parse(await self.ask(model, attempt, role, "reask", again, json_schema))

    async def ask(
        self,
        model: ChatModel,
        attempt: Attempt,
        role: Role,
        purpose: Purpose,
        messages: Sequence[Message],
        json_schema: dict[str, Any] | None = None,
    ) -> str:
        """The reply's text: from the table where it was received before, else from the model.

        Within a round a role is asked once for each purpose, so (attempt, role, purpose) names the question and
        each time that it is put is a Call of its own. One found without reply was cut off in flight: it may have
        been charged and stays booked at its worst cost.

        Raises:
            ModelError: the model failed; the call is stored as failed.
            Suspended: the reply is not there yet; the call is stored as waiting.
        """
        calls = self.store.calls(self.run_id)
        earlier = [c for c in calls if c.attempt_id == attempt.id and c.role is role]
        waiting: Call | None = None
        for call in (c for c in earlier if c.purpose == purpose):
            if call.reply is not None:
                return call.reply
            if call.state is CallState.STARTED:
                self._book_uncertain(model, call, json_schema)
            elif call.state is CallState.WAITING:
                waiting = call
        call = waiting or Call(
            key=f"{attempt.id}/{role.value}/{len(earlier)}",
            run_id=self.run_id,
            attempt_id=attempt.id,
            role=role,
            purpose=purpose,
            # One after the last: a branch has the calls of its line alone, and their positions may have gaps.
            position=1 + max((c.position for c in calls if c.role is role and c.reply is not None), default=-1),
            model=model.name,
            messages=tuple(messages),
        )
        if waiting is None:
            self.store.save_call(call)
        try:
            reply = await model.complete(_request(call, json_schema))
        except Suspended:
            if waiting is None:
                self.store.save_call(call.model_copy(update={"state": CallState.WAITING}))
            raise
        except ModelError as error:
            self.store.save_call(call.model_copy(update={"state": CallState.FAILED, "error": error.message}))
            raise
        except asyncio.CancelledError:
            if waiting is None:
                self._book_uncertain(model, call, json_schema)
            raise
        received = {
            "state": CallState.DONE,
            "reply": reply.text,
            "usage": reply.usage,
            "latency_s": reply.latency_s,
        }
        self.store.save_call(call.model_copy(update=received))
        if reply.usage.usd is None and reply.usage.input_tokens + reply.usage.output_tokens > 0:
            self.note(f"The price of {model.name} is not known: its calls do not count against the budget.", "warning")
        return reply.text

    def _book_uncertain(self, model: ChatModel, call: Call, json_schema: dict[str, Any] | None) -> None:
        worst = model.worst_case(_request(call, json_schema))
        self.store.save_call(call.model_copy(update={"state": CallState.UNCERTAIN, "usage": worst}))
        price = "an unknown price" if worst.usd is None else f"its worst price, ${worst.usd:.4f}"
        self.note(f"Call {call.key} was cut off in flight and may have been charged: booked at {price}.", "warning")

    # -- measurements -----------------------------------------------------------------------------------------

    async def measure(
        self, owner: str, kind: str, expected: type[_R], ask: Callable[[str], Awaitable[_R]]
    ) -> tuple[str, _R]:
        """A result of the evaluator and its key: from the table where it is stored, else measured now.

        `owner` is an attempt's id, or the run's for the baseline; `ask` gets the key, `OWNER/KIND/ORDINAL`. A
        failure of ours is asked again under the next key; a run that failed and was resumed goes on counting, so
        that no evaluator answers it with the old failure.

        Raises:
            EvaluatorError: three tries in a row failed, through no fault of the kernel.
            Suspended: the result comes later.
        """
        first = self._failures * MEASUREMENT_TRIES
        for ordinal in range(first + MEASUREMENT_TRIES):
            key = f"{owner}/{kind}/{ordinal}"
            stored = self.store.result(key)
            if isinstance(stored, expected) and not _infrastructure(stored):
                return key, stored
        failure = ""
        for ordinal in range(first, first + MEASUREMENT_TRIES):
            key = f"{owner}/{kind}/{ordinal}"
            if isinstance(stored := self.store.result(key), expected):
                failure = _infrastructure(stored)
                continue
            try:
                result = await ask(key)
            except EvaluatorError as error:
                failure = error.message
            else:
                self.store.save_result(self.run_id, key, result)
                failure = _infrastructure(result)
                if not failure:
                    return key, result
            self.note(f"{key} could not be measured, through no fault of the kernel: {failure}", "warning")
        raise EvaluatorError(
            f"{kind} of {owner} failed {MEASUREMENT_TRIES} times, through no fault of the kernel: {failure}",
            f"Mend the cause (`cudaforge doctor`), then `cudaforge resume {self.run_id}`.",
        )


def _request(call: Call, json_schema: dict[str, Any] | None) -> ChatRequest:
    return ChatRequest(
        key=call.key, role=call.role, position=call.position, messages=call.messages, json_schema=json_schema
    )


def _infrastructure(result: Result) -> str:
    """Why a result says nothing about its kernel, or ""."""
    evaluation = result.evaluation if isinstance(result, Verification) else result
    if isinstance(evaluation, Evaluation) and evaluation.verdict is Verdict.INFRASTRUCTURE:
        return evaluation.reason
    return ""


def _identity(event: Event) -> tuple[str, ...] | None:
    """What makes an event one that happens once a run; None for those that may repeat."""
    match event:
        case StageStarted() | StageFinished():
            return event.type, event.attempt_id, event.stage
        case AttemptFinished():
            return event.type, event.attempt_id
        case Note():
            return event.type, event.message
        case RunFinished():
            return (event.type, "done") if event.state is RunState.DONE else None
        case _ if event.type in ("run_started", "baseline_measured"):
            return (event.type,)
        case _:
            return None
