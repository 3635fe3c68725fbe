"""Vocabulary objects with every field filled in, to be stored and compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cudaforge.evaluation import (
    Baseline,
    Correctness,
    Evaluation,
    Interval,
    OutputError,
    Samples,
    SeedCommitment,
    Speedup,
    Verdict,
    Verification,
    WorkloadBaseline,
    WorkloadTiming,
)
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task, TaskMeta, Workload
from cudaforge.trace import (
    Action,
    Attempt,
    Budget,
    Call,
    CallState,
    Evidence,
    Message,
    Outcome,
    Plan,
    Role,
    Run,
    RunSpec,
    Usage,
)
from cudaforge_profiling.types import Ceilings, Device, Launch, Metric, Profile, Roofline

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
DEVICE = Device(
    kind="cpu",
    name="Abacus 9000",
    arch="avx2 fma",
    units=2,
    details={"clock_mhz": 2400, "governor": "performance", "scale": 0.5},
    ceilings=Ceilings(copy_bytes_per_s=2e10, flops_per_s={"float32": 1e11}),
)
SPEEDUP = Speedup(eager=Interval(value=2.5, low=2.4, high=2.6), compile=Interval(value=1.5, low=1.4, high=1.6))
# What models and broken files do contain: lone surrogates, NUL, other scripts.
AWKWARD = "naïve \ud800 \x00 内核 '; DROP TABLE runs; --"


def task(name: str = "softmax") -> Task:
    meta = TaskMeta(dtype="float32", workloads=(Workload(name="big", overrides={"n": 4096, "shape": [1, 2]}),))
    return Task(name=name, source="# 内核\nn = 1\nshape = [1]\n", meta=meta)


def run(run_id: str = "r000000001", *, minute: int = 0, name: str = "softmax", **changes: Any) -> Run:
    """A running run that was created `minute` minutes after START."""
    spec = RunSpec(
        task=task(name),
        language=Language.CPP,
        coder="openai:a",
        judge="manual:b",
        budget=Budget(usd=1.5),
        model_settings={"temperature": 0.2, "stop": ["x"]},
    )
    created = START + timedelta(minutes=minute)
    return Run.model_validate(
        {"id": run_id, "spec": spec, "device": DEVICE, "created": created, "updated": created, **changes}
    )


def outcome(run_id: str = "r000000001") -> Outcome:
    return Outcome(
        best=f"{run_id}.3", kernel=kernel().id, win=True, verification=f"{run_id}/verify/0", speedup=SPEEDUP, reason="x"
    )


def attempt(run_id: str = "r000000001", number: int = 0, **changes: Any) -> Attempt:
    plan = Plan(
        bottleneck="memory", evidence=(Evidence(metric="dram", value="91 %"),), method="tiling", steps=("a", "b")
    )
    values = {
        "id": f"{run_id}.{number}",
        "run_id": run_id,
        "round": number,
        "action": Action.REVISE,
        "advice": plan,
        "kernel": kernel().id,
        "verdict": Verdict.PASSED,
        "speedup": SPEEDUP,
        "time_us": 12.5,
        "started": START,
        "finished": START + timedelta(seconds=9),
    }
    return Attempt.model_validate({**values, **changes})


def kernel(text: str = AWKWARD) -> Kernel:
    return Kernel.of("cpp", {"kernel.cpp": text, "model.py": "class ModelNew: ..."}, ("-O3",))


def call(key: str = "r000000001.0/coder/0", *, run_id: str = "r000000001", second: int = 0, **changes: Any) -> Call:
    """A call that was started `second` seconds after START."""
    values = {
        "key": key,
        "run_id": run_id,
        "attempt_id": key.partition("/")[0],
        "role": Role.CODER,
        "purpose": "draft",
        "position": 0,
        "model": "openai:a",
        "messages": (Message(role="system", content="Be terse."), Message(role="user", content=AWKWARD)),
        "started": START + timedelta(seconds=second),
    }
    return Call.model_validate({**values, **changes})


def answered(key: str = "r000000001.0/coder/0", **changes: Any) -> Call:
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=10, usd=0.25)
    return call(key, **{"state": CallState.DONE, "reply": AWKWARD, "usage": usage, "latency_s": 1.5, **changes})


def samples() -> Samples:
    return Samples(median_us=10.0, low_us=9.5, high_us=10.5, samples_us=(9.5, 10.0, 10.5), clock="cpu")


def baseline() -> Baseline:
    workload = WorkloadBaseline(workload="big", eager=samples(), compile=samples(), compile_mode="default", bytes=8)
    return Baseline(task=task().id, device=DEVICE, workloads=(workload,), versions={"torch": "2.13.0"})


def evaluation() -> Evaluation:
    timing = WorkloadTiming(workload="big", kernel=samples(), eager=samples(), speedup=SPEEDUP)
    return Evaluation(
        verdict=Verdict.PASSED,
        task=task().id,
        kernel=kernel().id,
        device=DEVICE,
        speedup=SPEEDUP,
        time_us=10.0,
        correctness=Correctness(trials=5, passed=5, tolerance="calibrated", worst_ratio=0.5),
        workloads=(timing,),
        seeds=(SeedCommitment(sha256="0" * 64, seed=2**63),),
        stages_s={"build": 1.5},
        output_tail=AWKWARD,
    )


def incorrect() -> Evaluation:
    """An error that is infinite, which plain JSON cannot say."""
    error = OutputError(
        output="0", mismatched=1, total=4, max_abs=float("inf"), max_rel=1e30, first=(((0, 3), 1.0, None),)
    )
    return Evaluation(
        verdict=Verdict.INCORRECT,
        reason="1 of 4 values is off.",
        task=task().id,
        kernel=kernel().id,
        device=DEVICE,
        correctness=Correctness(trials=1, passed=0, tolerance="calibrated", errors=(error,)),
    )


def profile(report: bytes | None = None) -> Profile:
    metrics = {name: Metric(name=name, value=value, unit="%") for name, value in (("a", 1), ("b", 1.0), ("c", "n/a"))}
    return Profile(
        kernel=kernel().id,
        device=DEVICE,
        metric_set="core",
        tool="ncu 2025.3.1",
        launches=(Launch(index=0, name="softmax", grid=(8, 1, 1), metrics=metrics),),
        roofline=Roofline(bytes=8, floor_us=5.0, bound="memory"),
        report=report,
    )


def verification() -> Verification:
    return Verification(evaluation=evaluation(), aa=Interval(value=1.0, low=0.99, high=1.01), win=True, processes=3)
