"""Evaluator adapter `local`: this machine's GPUs, or its processor.

Each device has a lane, which does one request at a time. Several requests may be in flight: on a GPU their builds run
beside the lanes, and with several GPUs a task stays with the one on which its baseline was measured. On the CPU builds
and measurements take the same cores, so there everything is done one after the other. worker.py has the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cudaforge.engine.worker import Worker
from cudaforge.errors import CudaForgeError, EvaluatorError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    Build,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Request,
    Result,
    Verification,
    VerifyRequest,
)
from cudaforge.kernel import Kernel
from cudaforge_profiling.types import Profile

RESULTS: dict[str, type[Baseline] | type[Evaluation] | type[Profile] | type[Verification]] = {
    "baseline": Baseline,
    "evaluate": Evaluation,
    "profile": Profile,
    "verify": Verification,
}
CORES_A_BUILDER, MOST_BUILDERS = 2, 8
"""A compiler keeps one or two cores busy; the lane needs one for its clock."""
MOST_REMEMBERED = 1000
"""Results that are kept to be given again; who asks keeps them, too, and asks again at once if at all."""
MOST_LANES = 64
"""GPUs of one machine, at most: each lane that is asked keeps a thread waiting."""


class _Lane:
    """A device's worker, whose turn it is, and what it says of its device."""

    def __init__(self, home: Path, device: str) -> None:
        self.worker = Worker("lane", home, device)
        self.turn = asyncio.Lock()
        self.known: dict[str, Any] = {}
        self.tasks = 0
        """Tasks that are measured here."""


class LocalEvaluator:
    """Evaluates on this machine. `home` holds the caches.

    `device` is `cpu`, `cuda:N`, `cuda` (every GPU that torch sees) or `auto` (the same, else the CPU). Asking again
    with one of the last MOST_REMEMBERED keys of this session gives the same result. `builders`: how many kernels are
    built at once beside the lanes; by default as many as the cores allow.
    """

    def __init__(self, home: Path, device: str = "auto", builders: int | None = None) -> None:
        self.home, self.device = home, device
        self.lanes = [_Lane(home, device)]
        self._placed: dict[str, _Lane] = {}
        builders = builders or max(1, min(len(os.sched_getaffinity(0)) // CORES_A_BUILDER, MOST_BUILDERS))
        self._builders = [Worker("builder", home, device) for _ in range(builders)]
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()  # the last one has torch imported
        for worker in self._builders:
            self._idle.put_nowait(worker)
        self._threads = self._new_threads()
        self._keys: dict[str, asyncio.Lock] = {}
        self._done: OrderedDict[str, Result] = OrderedDict()
        self._preparing: set[asyncio.Task[None]] = set()

    async def baseline(self, request: BaselineRequest) -> Baseline:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Baseline)
        return result

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Evaluation)
        return result

    async def profile(self, request: ProfileRequest) -> Profile:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Profile)
        return result

    async def verify(self, request: VerifyRequest) -> Verification:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Verification)
        return result

    async def slots(self) -> int:
        """How many requests are worth having in flight: those that can be built and measured at the same time."""
        first = await self._known(self.lanes[0])
        if first["device"]["kind"] == "cpu":
            return 1
        return len(self.lanes) + len(self._builders)

    async def _request(self, request: Request) -> Result:
        async with self._keys.setdefault(request.key, asyncio.Lock()):
            if request.key not in self._done:
                lane = await self._lane(request.task.id)
                built: dict[str, Any] = {}
                if isinstance(request, EvaluateRequest) and lane.known["device"]["kind"] == "cuda":
                    preparing = asyncio.create_task(self._prepare(request, lane))
                    self._preparing.add(preparing)  # not waited for: the lane's turn comes after it anyway
                    preparing.add_done_callback(self._preparing.discard)
                    built = await self._build(request.kernel, request.options.build_timeout_s, lane)
                asked = time.monotonic()
                async with lane.turn:
                    waited = time.monotonic() - asked
                    message = {"request": request.model_dump(mode="json"), "built_late": "timeout" in built}
                    reply = await self._call(lane.worker, message)
                result: Result = RESULTS[request.kind].model_validate_json(reply["result"])
                if isinstance(result, Evaluation):
                    result = _with_stages(result, built, waited)
                self._done[request.key] = result
                while len(self._done) > MOST_REMEMBERED:
                    self._keys.pop(self._done.popitem(last=False)[0], None)
            return self._done[request.key]

    async def _lane(self, task: str) -> _Lane:
        """The lane that measures this task: always the same, at first the one with the fewest tasks."""
        await self._known(self.lanes[0])
        if task not in self._placed:
            self._placed[task] = min(self.lanes, key=lambda lane: lane.tasks)
            self._placed[task].tasks += 1
        await self._known(self._placed[task])
        return self._placed[task]

    async def _known(self, lane: _Lane) -> dict[str, Any]:
        """What a lane says of its device; the first lane's answer says how many others there are."""
        if lane.known:
            return lane.known
        async with lane.turn:
            if not lane.known:
                lane.known = await self._call(lane.worker, {"do": "describe"})
                if lane is self.lanes[0] and self.device in ("auto", "cuda") and lane.known["where"] != "cpu":
                    self.lanes += [_Lane(self.home, f"cuda:{i}") for i in range(1, int(lane.known["gpus"]))]
        return lane.known

    async def _build(self, kernel: Kernel, timeout_s: float, lane: _Lane) -> dict[str, Any]:
        """Builds beside the lane, which then finds what became of it in the cache. Where that goes wrong, it builds."""
        worker = await self._idle.get()
        try:
            message = {"kernel": kernel.model_dump(mode="json"), "device": lane.known["device"]}
            return await self._call(worker, {**message, "timeout_s": timeout_s})
        except EvaluatorError:
            return {}
        finally:
            self._idle.put_nowait(worker)

    async def _prepare(self, request: EvaluateRequest, lane: _Lane) -> None:
        """Lets a lane that has nothing to do get ready for the kernel while that is built."""
        if lane.turn.locked():
            return
        async with lane.turn:
            message = {"task": request.task.model_dump(mode="json"), "options": request.options.model_dump(mode="json")}
            with contextlib.suppress(CudaForgeError):  # what is wrong is said by the evaluation
                await self._call(lane.worker, message)

    async def _call(self, worker: Worker, message: dict[str, Any]) -> dict[str, Any]:
        """Asks a worker in a thread; one that is asked by a caller who gives up is ended."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, message)
        except asyncio.CancelledError:
            worker.stop(grace_s=0.0)  # what runs there is of no use to anybody any more
            raise

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(self._builders) + MOST_LANES, "cudaforge-evaluator")

    async def close(self) -> None:
        """Ends all processes; one that is asked again starts again. Idempotent."""
        workers = [*(lane.worker for lane in self.lanes), *self._builders]
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
        self._threads.shutdown(wait=False)
        self._threads = self._new_threads()


def _with_stages(found: Evaluation, built: dict[str, Any], waited: float) -> Evaluation:
    """An evaluation with what went before its lane: the build beside it, in seconds, and the wait for its turn."""
    stages = dict(found.stages_s)
    update: dict[str, Any] = {}
    if built:
        stages["build"] = built["seconds"]
    if "build" in built:
        update["build"] = Build.model_validate(built["build"])
    stages["wait for device"] = stages.get("wait for device", 0.0) + waited
    return found.model_copy(update={**update, "stages_s": stages})
