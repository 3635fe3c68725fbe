"""A deterministic Evaluator that compiles nothing, and a server process around it that tests can kill.

What it does is written in the request, so that it needs no patching. The kernel source `broken` does not build.
Task notes: `hang` never ends, `hang once` only for the first who begins it, `block` stops the whole process for 3 s,
`die` kills the process, `error` raises EvaluatorError, `flaky` raises it once per key, `no task` raises TaskError,
`bug` raises ValueError.

As a program it serves a spool: `python -m support.small_evaluator --spool DIR --log FILE [--lease S] [--drain]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cudaforge.engine.spool import run_server
from cudaforge.engine.spool_files import AnyRequest
from cudaforge.errors import EvaluatorError, TaskError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    Correctness,
    EvaluateRequest,
    Evaluation,
    Interval,
    ProfileRequest,
    Samples,
    Speedup,
    Verdict,
    Verification,
    VerifyRequest,
    WorkloadBaseline,
)
from cudaforge.kernel import Kernel
from cudaforge.task import Task, TaskMeta
from cudaforge_profiling.types import Device, Launch, Metric, Profile

R = TypeVar("R")
DEVICE = Device(kind="cpu", name="abacus", arch="beads", units=1)


def small_task(notes: str = "") -> Task:
    """A task whose notes tell SmallEvaluator what to do."""
    source = "class Model: ...\ndef get_inputs(): return []\ndef get_init_inputs(): return []\n"
    return Task(name="small", source=source, meta=TaskMeta(notes=notes))


def small_kernel(text: str = "fast") -> Kernel:
    """A kernel that SmallEvaluator passes, unless `text` is `broken`."""
    return Kernel.of("module", {"model.py": text})


def evaluate_request(key: str, notes: str = "", text: str = "fast") -> EvaluateRequest:
    """A request whose course `notes` and `text` decide."""
    return EvaluateRequest(key=key, task=small_task(notes), kernel=small_kernel(text))


class SmallEvaluator:
    """Answers from the request alone, except `stages_s`, which counts the work done: a repeated answer shows.

    `log` gets one line for each piece of work begun: the process and the key.
    """

    def __init__(self, log: Path | None = None) -> None:
        self.log = log
        self.closed = 0
        self._begun: list[str] = []
        self._results: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def baseline(self, request: BaselineRequest) -> Baseline:
        def result() -> Baseline:
            times = Samples(median_us=10.0, low_us=9.0, high_us=11.0, samples_us=(9.0, 10.0, 11.0), clock="none")
            workload = WorkloadBaseline(workload="default", eager=times, bytes=64)
            return Baseline(task=request.task.id, device=DEVICE, workloads=(workload,), stages_s=self._stages())

        return await self._once(request, result)

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        return await self._once(request, lambda: self._evaluation(request))

    async def profile(self, request: ProfileRequest) -> Profile:
        def result() -> Profile:
            launches = (Launch(index=0, name="f", metrics={"m": Metric(name="m", value=1.5)}),)
            return Profile(
                kernel=request.kernel.id,
                device=DEVICE,
                metric_set=request.metric_set,
                tool="none",
                launches=launches,
                report=bytes(range(256)),
                seconds=self._stages()["pieces"],
            )

        return await self._once(request, result)

    async def verify(self, request: VerifyRequest) -> Verification:
        return await self._once(
            request, lambda: Verification(evaluation=self._evaluation(request), win=True, processes=request.processes)
        )

    async def close(self) -> None:
        self.closed += 1

    def _evaluation(self, request: EvaluateRequest | VerifyRequest) -> Evaluation:
        task, kernel, stages = request.task.id, request.kernel.id, self._stages()
        if request.kernel.source == "broken":
            return Evaluation(
                verdict=Verdict.BUILD_FAILED,
                reason="It is broken.",
                task=task,
                kernel=kernel,
                device=DEVICE,
                stages_s=stages,
            )
        return Evaluation(
            verdict=Verdict.PASSED,
            task=task,
            kernel=kernel,
            device=DEVICE,
            speedup=Speedup(eager=Interval(value=2.0, low=1.9, high=2.1)),
            time_us=5.0,
            correctness=Correctness(trials=5, passed=5, tolerance="none"),
            stages_s=stages,
        )

    def _stages(self) -> dict[str, float]:
        return {"pieces": float(len(self._begun)), "process": float(os.getpid())}

    async def _once(self, request: AnyRequest, result: Callable[[], R]) -> R:
        async with self._lock:
            if request.key not in self._results:
                await self._work(request)
                self._results[request.key] = result()
            kept: R = self._results[request.key]
            return kept

    async def _work(self, request: AnyRequest) -> None:
        seen = request.key in self._begun
        seen_by_any = self.log is not None and self.log.exists() and f" {request.key}\n" in self.log.read_text()
        self._begun.append(request.key)
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{os.getpid()} {request.key}\n")
        match request.task.meta.notes:
            case "hang":
                await asyncio.sleep(3600)
            case "hang once" if not seen_by_any:
                await asyncio.sleep(3600)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "block":  # the whole process, event loop and all, for longer than a short lease
                time.sleep(3.0)
            case "error":
                raise EvaluatorError("The abacus lacks a bead.", "Buy one.")
            case "no task":
                raise TaskError("The task divides by zero.", "Mend it.")
            case "flaky" if not seen:
                raise EvaluatorError("The abacus slipped.")
            case "bug":
                raise ValueError("seven beads")
            case _:
                await asyncio.sleep(0.002)


def main() -> int:
    """Serves a spool with a SmallEvaluator; `--clock-off` lives on a host whose clock is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--lease", type=float, default=60.0)
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--clock-off", type=float, default=0.0)
    options = parser.parse_args()
    right = time.time
    time.time = lambda: right() + options.clock_off
    return run_server(
        options.spool,
        SmallEvaluator(options.log),
        drain=options.drain,
        lease_s=options.lease,
        poll_s=0.02,
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
