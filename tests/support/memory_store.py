"""MemoryStore: the Store port in dictionaries, for tests of what uses a store. It passes the store's contract."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from cudaforge.errors import StoreError
from cudaforge.evaluation import Result
from cudaforge.kernel import Kernel
from cudaforge.trace import Attempt, Call, Event, Run, StoredEvent, now
from cudaforge_profiling.types import Profile

T = TypeVar("T", Attempt, Call)


class MemoryStore:
    """Implements ports.Store. Vocabulary objects are frozen, so they are kept as they are."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._attempts: dict[str, Attempt] = {}
        self._kernels: dict[str, Kernel] = {}
        self._calls: dict[str, Call] = {}
        self._results: dict[str, Result] = {}
        self._events: list[StoredEvent] = []
        self._artifacts: dict[str, bytes] = {}

    def create_run(self, run: Run) -> None:
        if run.id in self._runs:
            raise StoreError(f"There is already a run {run.id}.")
        self._runs[run.id] = run

    def run(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    def save_run(self, run: Run) -> None:
        self._need_run(run.id)
        self._runs[run.id] = run

    def runs(self, limit: int = 100) -> list[Run]:
        return sorted(self._runs.values(), key=lambda run: (run.created, run.id), reverse=True)[:limit]

    def save_attempt(self, attempt: Attempt) -> None:
        self._need_run(attempt.run_id)
        self._attempts[attempt.id] = attempt

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def attempts(self, run_id: str) -> list[Attempt]:
        return sorted(_of(run_id, self._attempts), key=lambda attempt: (attempt.round, attempt.id))

    def save_kernel(self, kernel: Kernel) -> None:
        self._kernels[kernel.id] = kernel

    def kernel(self, kernel_id: str) -> Kernel | None:
        return self._kernels.get(kernel_id)

    def save_call(self, call: Call) -> None:
        self._need_run(call.run_id)
        stored = self._calls.get(call.key)
        if stored is None or stored.reply is None or call.reply is not None:
            self._calls[call.key] = call

    def call(self, key: str) -> Call | None:
        return self._calls.get(key)

    def calls(self, run_id: str) -> list[Call]:
        return sorted(_of(run_id, self._calls), key=lambda call: call.started)

    def save_result(self, run_id: str, key: str, result: Result) -> None:
        self._need_run(run_id)
        if isinstance(result, Profile) and result.report is not None:
            self.put_artifact(result.report)
            result = result.model_copy(update={"report": None})
        self._results[key] = result

    def result(self, key: str) -> Result | None:
        return self._results.get(key)

    def append(self, event: Event) -> int:
        self._need_run(event.run_id)
        self._events.append(StoredEvent(id=len(self._events) + 1, at=now(), event=event))
        return len(self._events)

    def events(self, run_id: str | None = None, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        later = self._events[max(after, 0) :]
        return [stored for stored in later if run_id is None or stored.event.run_id == run_id][:limit]

    def put_artifact(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._artifacts[digest] = data
        return digest

    def artifact(self, digest: str) -> bytes | None:
        return self._artifacts.get(digest)

    def close(self) -> None:
        """Nothing to let go of."""

    def _need_run(self, run_id: str) -> None:
        if run_id not in self._runs:
            raise StoreError(f"There is no run {run_id}.")


def _of(run_id: str, objects: dict[str, T]) -> list[T]:
    return [item for item in objects.values() if item.run_id == run_id]
