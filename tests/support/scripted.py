"""Models and an evaluator that follow a script: small real parts behind the ports, the same in every process.

What a kernel does is written in its source: `# time_us=80` passes at 80 us (the reference takes 100), `# INCORRECT`
(or any other verdict) fails, `# unstable` after a time passes its screening but not its verification. So a process
that continues another's run needs no shared memory to give the same answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from cudaforge.kernel import Kernel, Language
from cudaforge.ports import ChatReply, ChatRequest, Store
from cudaforge.search.chain import ChainPolicy
from cudaforge.task import Task
from cudaforge.trace import PRESETS, Budget, Preset, Run, RunSpec, Usage
from cudaforge_profiling.types import Device, Profile

if TYPE_CHECKING:
    from cudaforge.graph import Context

EAGER_US = 100.0
DEVICE = Device(kind="cpu", name="abacus", arch="beads", units=1)
TASK_SOURCE = """import torch
from torch import nn

class Model(nn.Module):
    def forward(self, x):
        return x + 1

def get_inputs():
    return [torch.rand(4)]

def get_init_inputs():
    return []
"""

UNREADABLE = "I would rather talk about the weather."


def kernel_reply(what: str) -> str:
    """A Coder's reply with a kernel that does `what`: `time_us=80`, `INCORRECT`."""
    return f"Here it is.\n\n`model.py`:\n```python\nclass ModelNew:\n    pass  # {what}\n```\n"


def plan_reply(gain: float = 1.5) -> str:
    """A Judge's plan."""
    plan = {
        "bottleneck": "memory",
        "evidence": [{"metric": "time_us", "value": "80"}],
        "method": "fuse the loops",
        "steps": ["fuse them"],
        "predicted_gain": gain,
    }
    return json.dumps(plan)


def diagnosis_reply() -> str:
    """A Judge's diagnosis."""
    return json.dumps(
        {"critical_issue": "off by one", "why_it_matters": "reads past the end", "minimal_fix_hint": "use <"}
    )


class ScriptedModel:
    """Answers by position, as a recording does. `surprises` are raised first, one for each call; None answers.

    Each request is kept in `requests`; `ROLE POSITION` of each reply is a line of `log`.
    """

    def __init__(
        self,
        name: str,
        replies: Sequence[str],
        *,
        surprises: Sequence[BaseException | None] = (),
        usd: float | None = 0.01,
        log: Path | None = None,
    ) -> None:
        self._name = name
        self._replies = replies
        self._surprises = list(surprises)
        self._usd = usd
        self._log = log
        self.requests: list[ChatRequest] = []

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        if self._surprises and (surprise := self._surprises.pop(0)) is not None:
            raise surprise
        usage = Usage(input_tokens=100, output_tokens=10, usd=self._usd)
        reply = ChatReply(text=self._replies[request.position], model=self._name, usage=usage, latency_s=0.5)
        _write_line(self._log, f"{request.role.value} {request.position}")
        return reply

    def worst_case(self, request: ChatRequest) -> Usage:
        return Usage(input_tokens=100, output_tokens=1000, usd=None if self._usd is None else self._usd * 10)


class ScriptedEvaluator:
    """Does what the kernel's source says. `surprises` maps a kind (`evaluate`) to what its calls raise, or to the
    verdict that they get instead, one for each call; None answers.

    The key of each piece of work that was finished is a line of `log`.
    """

    def __init__(
        self,
        *,
        surprises: Mapping[str, Sequence[BaseException | Verdict | None]] | None = None,
        log: Path | None = None,
    ) -> None:
        self._surprises = {kind: list(entries) for kind, entries in (surprises or {}).items()}
        self._log = log
        self.keys: list[str] = []
        """Of all requests, in order."""

    async def baseline(self, request: BaselineRequest) -> Baseline:
        self._begin("baseline", request.key)
        workload = WorkloadBaseline(workload="default", eager=_samples(EAGER_US), bytes=32, floor_us=10.0)
        _write_line(self._log, request.key)
        return Baseline(task=request.task.id, device=DEVICE, workloads=(workload,), stages_s={"eager": 0.25})

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        instead = self._begin("evaluate", request.key)
        evaluation = self._evaluation(request.task, request.kernel, instead)
        _write_line(self._log, request.key)
        return evaluation

    async def profile(self, request: ProfileRequest) -> Profile:
        self._begin("profile", request.key)
        _write_line(self._log, request.key)
        return Profile(
            kernel=request.kernel.id, device=DEVICE, metric_set=request.metric_set, tool="beads", unavailable="no ncu"
        )

    async def verify(self, request: VerifyRequest) -> Verification:
        instead = self._begin("verify", request.key)
        if instead is None and "unstable" in request.kernel.source:
            instead = Verdict.INCORRECT
        evaluation = self._evaluation(request.task, request.kernel, instead)
        _write_line(self._log, request.key)
        win = evaluation.speedup is not None and evaluation.speedup.eager.low > 1
        return Verification(evaluation=evaluation, win=win, processes=request.processes)

    async def close(self) -> None:
        return

    def _begin(self, kind: str, key: str) -> Verdict | None:
        self.keys.append(key)
        surprise = self._surprises[kind].pop(0) if self._surprises.get(kind) else None
        if isinstance(surprise, BaseException):
            raise surprise
        return surprise

    def _evaluation(self, task: Task, kernel: Kernel, instead: Verdict | None) -> Evaluation:
        common: dict[str, Any] = {
            "task": task.id,
            "kernel": kernel.id,
            "device": DEVICE,
            "stages_s": {"build": 0.5, "check": 0.25},
        }
        timed = re.search(r"time_us=([\d.]+)", kernel.source)
        if instead is not None or timed is None:
            verdict = instead or Verdict(kernel.source.split("# ")[1].split()[0])
            return Evaluation(verdict=verdict, reason=f"It is {verdict.value}.", **common)
        time_us = float(timed[1])
        ratio = EAGER_US / time_us
        return Evaluation(
            verdict=Verdict.PASSED,
            speedup=Speedup(eager=Interval(value=ratio, low=ratio * 0.98, high=ratio * 1.02)),
            time_us=time_us,
            correctness=Correctness(trials=5, passed=5, tolerance="none"),
            **common,
        )


def scripted_spec(
    *, rounds: int = 10, preset: Preset | str = "default", language: Language = Language.MODULE, **budget: Any
) -> RunSpec:
    """What a scripted run is made of; `budget` are further fields of Budget."""
    return RunSpec(
        task=Task.parse(TASK_SOURCE, name="add-one"),
        language=language,
        coder="scripted:coder",
        judge="scripted:judge",
        evaluator="scripted",
        budget=Budget(rounds=rounds, **budget),
        preset=PRESETS[preset] if isinstance(preset, str) else preset,
    )


def scripted_run(store: Store, spec: RunSpec, run_id: str = "r000000000a") -> Run:
    """A stored run, not yet started."""
    run = Run(id=run_id, spec=spec)
    store.create_run(run)
    return run


def scripted_context(
    store: Store,
    coder: Sequence[str] | ScriptedModel,
    judge: Sequence[str] | ScriptedModel = (),
    evaluator: ScriptedEvaluator | None = None,
) -> Context:
    """A context of scripted parts; plain replies become models."""
    from cudaforge.graph import Context

    return Context(
        store=store,
        coder=coder if isinstance(coder, ScriptedModel) else ScriptedModel("scripted:coder", coder),
        judge=judge if isinstance(judge, ScriptedModel) else ScriptedModel("scripted:judge", judge),
        evaluator=evaluator or ScriptedEvaluator(),
        policy=ChainPolicy(),
    )


def _samples(median: float) -> Samples:
    return Samples(median_us=median, low_us=median, high_us=median, samples_us=(median,) * 3, clock="none")


def _write_line(log: Path | None, line: str) -> None:
    """Appended with one write, so that a kill leaves whole lines."""
    if log is not None:
        with log.open("a") as file:
            file.write(line + "\n")
