"""The four Protocols between the run and the world: ChatModel, Evaluator, Store, SearchPolicy.

A reader of graph.py needs only these signatures; the adapters stand in llm/, engine/, store/ and search/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Result,
    Verification,
    VerifyRequest,
)
from cudaforge.kernel import Kernel
from cudaforge.trace import Action, Attempt, Call, Event, Message, Role, Run, RunSpec, StoredEvent, Usage
from cudaforge_profiling.types import Frozen, Profile


class ChatRequest(Frozen):
    """One question. `key` is unique per call; `position` counts the role's earlier replies in the run."""

    key: str
    role: Role
    position: int
    messages: tuple[Message, ...]
    json_schema: dict[str, Any] | None = None
    """Ask for JSON of this schema; where the server cannot, the reply is still validated by the caller."""


class ChatReply(Frozen):
    """What the model said, whole. A cut-off stream is never a ChatReply."""

    text: str
    model: str
    usage: Usage = Usage()
    latency_s: float = 0.0
    finish_reason: str = "stop"


class ChatModel(Protocol):
    """A model behind `provider:name`."""

    @property
    def name(self) -> str:
        """`provider:name`."""
        ...

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Answers, after retries with back-off where a retry can help.

        Raises:
            ModelError: refused, unknown, unreachable after retries, or a recording that has ended.
            Suspended: the reply comes from elsewhere and is not there yet (`manual:`).
        """
        ...

    def worst_case(self, request: ChatRequest) -> Usage:
        """The most that this call can cost: what a call that was cut off in flight is booked at."""
        ...


class Evaluator(Protocol):
    """Where kernels are built, checked, timed and profiled.

    Every method raises EvaluatorError for a failure of ours, TaskError where the task's own code fails, and
    Suspended where the result comes later: ask again with the same key. A kernel's failure is a result, never an
    exception. Asking twice with one key gives the same result and does the work once.
    """

    async def baseline(self, request: BaselineRequest) -> Baseline: ...

    async def evaluate(self, request: EvaluateRequest) -> Evaluation: ...

    async def profile(self, request: ProfileRequest) -> Profile: ...

    async def verify(self, request: VerifyRequest) -> Verification: ...

    async def close(self) -> None:
        """Ends processes that this evaluator started. Idempotent."""
        ...


class Store(Protocol):
    """The record: runs, attempts, kernels, calls, results, events, artefacts. One writer, durable on return.

    Raises StoreError; KeyError never leaves it: what is not there is None (single objects) or empty.
    """

    def create_run(self, run: Run) -> None: ...

    def run(self, run_id: str) -> Run | None: ...

    def save_run(self, run: Run) -> None: ...

    def runs(self, limit: int = 100) -> list[Run]:
        """Newest first."""
        ...

    def save_attempt(self, attempt: Attempt) -> None:
        """Inserts or replaces by id."""
        ...

    def attempt(self, attempt_id: str) -> Attempt | None: ...

    def attempts(self, run_id: str) -> list[Attempt]:
        """In order of rounds."""
        ...

    def save_kernel(self, kernel: Kernel) -> None: ...

    def kernel(self, kernel_id: str) -> Kernel | None: ...

    def save_call(self, call: Call) -> None:
        """Inserts or replaces by key. A call with a reply is never replaced by one without."""
        ...

    def call(self, key: str) -> Call | None: ...

    def calls(self, run_id: str) -> list[Call]:
        """In the order in which they were started."""
        ...

    def save_result(self, run_id: str, key: str, result: Result) -> None:
        """Keeps the whole result as JSON; a profile's report goes to the artefacts."""
        ...

    def result(self, key: str) -> Result | None: ...

    def append(self, event: Event) -> int:
        """Adds an event for good and returns its id; ids only grow."""
        ...

    def events(self, run_id: str | None = None, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Events with an id above `after`, in order; of all runs where run_id is None."""
        ...

    def put_artifact(self, data: bytes) -> str:
        """Keeps bytes under their SHA-256 (hex), which it returns."""
        ...

    def artifact(self, digest: str) -> bytes | None: ...

    def close(self) -> None: ...


class Step(Frozen):
    """What the run does next."""

    action: Literal["draft", "repair", "revise", "stop"]
    base: str | None = None
    """The attempt to repair or revise."""
    reason: str = ""


class SearchPolicy(Protocol):
    """What to build on and when to stop. Pure: the same history gives the same step."""

    def next(self, spec: RunSpec, attempts: Sequence[Attempt], spent: Usage, seconds: float) -> Step:
        """The next step after `attempts`; `seconds` is the run's wall time so far."""
        ...

    def ranking(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Passing attempts, best first: the order in which they are verified."""
        ...


__all__ = [
    "Action",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "Evaluator",
    "SearchPolicy",
    "Step",
    "Store",
]
