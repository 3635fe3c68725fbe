"""`cudaforge worker`: takes runs and single evaluations from the queue and carries them out.

Any number of workers may share a home, on one host. Each drives up to `slots` jobs at the same time in one event
loop: while one waits for a model, another is measured. Whatever ends a worker, even SIGKILL, its jobs go on in
another, and nothing that was received is asked again (graph.py, store/queue.py).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cudaforge import wiring
from cudaforge.errors import CudaForgeError, StoreError
from cudaforge.evaluation import Verdict
from cudaforge.jobs import Job, SingleState, WorkerInfo
from cudaforge.ports import Evaluator
from cudaforge.trace import RunFinished, RunState, now

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

SLOTS = 4
POLL_S = 0.5
BEAT_S = 5.0
DRAIN_S = 20.0
"""How long a drained worker lets its jobs go on before it gives them back."""
STORE_PAUSE_S = 5.0
"""Before the next look at a database that could not be used."""

MakeEvaluator = Callable[[str, Path], Evaluator]


def patient_evaluator(spec: str, home: Path) -> Evaluator:
    """The evaluator that a run names; where it is a spool, its answer is waited for."""
    return wiring.make_evaluator(spec, home, patient=True)


class QueueWorker:
    """One worker process. `run` returns once it was drained."""

    def __init__(
        self,
        home: Path,
        *,
        slots: int = SLOTS,
        drain_s: float = DRAIN_S,
        poll_s: float = POLL_S,
        make_evaluator: MakeEvaluator = patient_evaluator,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.home = home
        self.info = WorkerInfo(id=f"w{secrets.token_hex(5)}", pid=os.getpid(), slots=slots, started=now(), seen=now())
        self._drain_s, self._poll_s = drain_s, poll_s
        self._make_evaluator = make_evaluator
        self._say = say
        self._store: SqliteStore = wiring.open_record(home)
        self._evaluators: dict[str, Evaluator] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._draining = asyncio.Event()
        self.jobs = 0
        """That this worker has carried out, to wherever they came to rest."""
        self._given_back = False
        """Drained for long enough: what is cancelled now is for another worker, not stopped for good."""

    def drain(self) -> None:
        """Takes no more jobs; those under way get `drain_s` seconds, then go back into the queue. Twice: at once."""
        if self._draining.is_set():
            self._drain_s = 0.0
        self._draining.set()

    async def run(self) -> None:
        """Works until it is drained. Raises StoreError where the database cannot even be opened."""
        try:
            with self._store.queue.work(self.info):
                try:
                    await self._work()
                finally:
                    await self._give_back()
        finally:
            for evaluator in self._evaluators.values():
                await evaluator.close()
            self._store.close()

    async def _work(self) -> None:
        beaten = 0.0
        while not self._draining.is_set():
            wait_s = self._poll_s
            try:
                if time.monotonic() - beaten >= BEAT_S:
                    beaten = time.monotonic()
                    self._store.queue.beat(self.info)
                    self._store.queue.recover(self.info.id, self._tasks.keys())
                    for given_up in self._store.queue.release():
                        self._say(f"{given_up}: given up, its workers died")
                self._cancel_unwanted()
                while len(self._tasks) < self.info.slots and (job := self._store.queue.claim(self.info.id)):
                    self._tasks[job.id] = asyncio.create_task(self._carry_out(job))
            except StoreError as error:  # a full disk, say: jobs under way meet it themselves
                self._say(f"{error.message} {error.hint}")
                wait_s = STORE_PAUSE_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), wait_s)

    async def _give_back(self) -> None:
        """Lets jobs go on for `drain_s` seconds, then cancels them into the queue."""
        if not self._tasks:
            return
        self.info = self.info.model_copy(update={"draining": True})
        with suppress(StoreError):
            self._store.queue.beat(self.info)
        self._say(f"draining: {len(self._tasks)} jobs under way")
        began = time.monotonic()
        while self._tasks and time.monotonic() < began + self._drain_s:
            with suppress(StoreError):  # a full disk must not turn giving back into stopping
                self._cancel_unwanted()
            await asyncio.wait(self._tasks.values(), timeout=self._poll_s)
        self._given_back = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _cancel_unwanted(self) -> None:
        for job_id in self._store.queue.cancelled(self.info.id) & self._tasks.keys():
            self._tasks[job_id].cancel()

    async def _carry_out(self, job: Job) -> None:
        """One job, to wherever it comes to rest. A failure is stored with it; it never ends the worker."""
        self._say(f"{job.id}: begun" + (f" (delivery {job.deliveries})" if job.deliveries > 1 else ""))
        try:
            how = await (self._drive(job) if job.kind == "run" else self._measure(job))
            self._store.queue.leave(job.id, self.info.id)
            self.jobs += 1
            self._say(f"{job.id}: {how}")
        except StoreError as error:  # left as it is: when this worker ends, another one takes it over
            self._say(f"{job.id}: {error.message}")
        finally:
            del self._tasks[job.id]

    async def _drive(self, job: Job) -> str:
        store = self._store
        try:
            run = store.run(job.id)
            if run is None:
                raise StoreError(f"Run {job.id} is in the queue and not in the store.")
            evaluator = self._evaluator(run.spec.evaluator)
            run = await wiring.resume(run.id, store, self.home, evaluator, self._cancelled_as)
        except Exception as error:
            reason = error.message if isinstance(error, CudaForgeError) else f"{type(error).__name__}: {error}"
            if wiring.is_driven(job.id, self.home):  # `cudaforge resume`, say: it is that process's now
                store.queue.let_go(job.id, self.info.id)
                return reason
            stored = store.run(job.id)
            if stored is not None and stored.state not in (RunState.FAILED, RunState.DONE):
                # It failed before the graph had it: a model without its key, say.
                failed = {"state": RunState.FAILED, "error": reason, "updated": now()}
                store.save_run(stored.model_copy(update=failed))
                store.append(RunFinished(run_id=job.id, state=RunState.FAILED, reason=reason))
            return f"failed: {reason}"
        return run.state.value

    async def _measure(self, job: Job) -> str:
        store = self._store
        single = store.queue.single(job.id)
        if single is None:
            raise StoreError(f"Evaluation {job.id} is in the queue and not in the store.")
        try:
            evaluator = self._evaluator(single.evaluator)
            single = await wiring.measure(single, store, evaluator, job.deliveries)
            if single.evaluation and single.evaluation.verdict is Verdict.INFRASTRUCTURE:
                single = single.model_copy(update={"state": SingleState.FAILED, "error": single.evaluation.reason})
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            state = SingleState.QUEUED if self._given_back else SingleState.STOPPED
            single = single.model_copy(update={"state": state})
        except Exception as error:
            reason = error.message if isinstance(error, CudaForgeError) else f"{type(error).__name__}: {error}"
            single = single.model_copy(update={"state": SingleState.FAILED, "error": reason})
        store.queue.save_single(single.model_copy(update={"updated": now()}))
        return f"{single.state.value} {single.evaluation.verdict.value if single.evaluation else single.error}".strip()

    def _cancelled_as(self) -> RunState:
        return RunState.QUEUED if self._given_back else RunState.STOPPED

    def _evaluator(self, spec: str) -> Evaluator:
        if spec not in self._evaluators:
            self._evaluators[spec] = self._make_evaluator(spec, self.home)
        return self._evaluators[spec]


async def work(worker: QueueWorker, *, parent: int | None = None) -> None:
    """Runs a worker until SIGTERM or SIGINT drains it, or until `parent` (a process id) has gone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.drain)

    async def watch() -> None:
        while os.getppid() == parent:
            await asyncio.sleep(0.5)
        worker.drain()

    watching = asyncio.create_task(watch()) if parent is not None else None
    try:
        await worker.run()
    finally:
        if watching is not None:
            watching.cancel()
