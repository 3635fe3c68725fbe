"""Small real things to brief agents about: a task, devices, kernels, verdicts and profiles."""

from __future__ import annotations

from typing import Any

from cudaforge.agents.briefing import Briefing, HistoryEntry
from cudaforge.evaluation import (
    Baseline,
    Build,
    Correctness,
    Diagnostic,
    Evaluation,
    Interval,
    OutputError,
    Samples,
    Speedup,
    Verdict,
    WorkloadBaseline,
)
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task, TaskMeta
from cudaforge.trace import PRESETS, Action, Diagnosis, Evidence, Plan, Preset
from cudaforge_profiling.types import Ceilings, Device, HotLine, Launch, Metric, Profile, Remark, Roofline
from cudaforge_prompts import example

SOURCE = """\
import torch
from torch import nn

rows = 64  # REFERENCE-MARK


class Model(nn.Module):
    def forward(self, x):
        return torch.softmax(x, 1)


def get_inputs():
    return [torch.rand(rows, 128)]


def get_init_inputs():
    return []
"""

GPU = Device(
    kind="cuda",
    name="NVIDIA Test 9000",
    arch="sm_90a",
    units=132,
    memory_bytes=80 << 30,
    cache_bytes=50 << 20,
    details={"shared_memory_per_block_optin": 232448},
    ceilings=Ceilings(copy_bytes_per_s=3.02e12, flops_per_s={"float32": 5.2e13}),
)
CPU = Device(
    kind="cpu",
    name="Abacus 9000",
    arch="avx512f avx2 fma",
    units=2,
    cache_bytes=32 << 20,
    ceilings=Ceilings(copy_bytes_per_s=2e10),
)

DIAGNOSIS = Diagnosis(critical_issue="ISSUE-MARK", why_it_matters="WHY-MARK", minimal_fix_hint="HINT-MARK")
PLAN = Plan(
    bottleneck="BOTTLENECK-MARK",
    evidence=(Evidence(metric="dram", value="91 %"),),
    method="METHOD-MARK",
    steps=("STEP-MARK",),
    predicted_gain=1.25,
)


def device_of(language: Language) -> Device:
    return CPU if language is Language.CPP else GPU


def samples(us: float) -> Samples:
    return Samples(median_us=us, low_us=us * 0.99, high_us=us * 1.01, samples_us=(us,), clock="test")


def kernel(language: Language) -> Kernel:
    files = example(language.value, device_of(language).kind)
    return Kernel.of(language, {name: text for name, text in files.items() if name != "reference.py"})


def briefing(language: Language = Language.CUDA, preset: Preset | str = "default", **meta: Any) -> Briefing:
    task = Task.parse(SOURCE).model_copy(update={"meta": TaskMeta(**meta)})
    device = device_of(language)
    workload = WorkloadBaseline(
        workload="default",
        eager=samples(1011.0),
        compile=samples(707.0),
        compile_mode="max-autotune-no-cudagraphs",
        inputs=("float32[64, 128]",),
        bytes=65536,
        floor_us=303.0,
        bound="memory",
    )
    return Briefing(
        task=task,
        language=language,
        device=device,
        baseline=Baseline(task=task.id, device=device, workloads=(workload,)),
        preset=PRESETS[preset] if isinstance(preset, str) else preset,
        history=(
            HistoryEntry(round=0, action=Action.DRAFT, verdict=None, summary="no code block"),
            HistoryEntry(
                round=1,
                action=Action.DRAFT,
                verdict=Verdict.PASSED,
                summary="HISTORY-MARK",
                time_us=909.0,
                speedup=1.11,
                predicted_gain=1.5,
                measured_gain=1.2,
            ),
        ),
    )


def passed(language: Language = Language.CUDA) -> Evaluation:
    return Evaluation(
        verdict=Verdict.PASSED,
        task="t",
        kernel=kernel(language).id,
        device=device_of(language),
        time_us=606.0,
        speedup=Speedup(
            eager=Interval(value=1.67, low=1.61, high=1.71), compile=Interval(value=1.17, low=1.1, high=1.2)
        ),
        share_of_floor=0.5,
        correctness=Correctness(trials=2, passed=2, tolerance="4 x float32's own error"),
        build=Build(remarks=(Remark(file="kernel.cpp", line=10, kind="missed", message="BUILD-REMARK"),)),
    )


def failed(verdict: Verdict, language: Language = Language.CUDA, **changes: Any) -> Evaluation:
    source = language.source_name or "model.py"
    values: dict[str, Any] = {
        "verdict": verdict,
        "reason": "REASON-MARK",
        "task": "t",
        "kernel": kernel(language).id,
        "device": device_of(language),
        "output_tail": "PRINTED-MARK",
    }
    if verdict is Verdict.BUILD_FAILED:
        values["diagnostics"] = (
            Diagnostic(severity="warning", message="WARNING-MARK", file=source, line=2, tool="nvcc"),
            Diagnostic(
                severity="error",
                message='identifier "foo" is undefined',
                file=source,
                line=7,
                column=3,
                source_line="  foo(x);",
                tool="nvcc",
            ),
        )
    if verdict is Verdict.INCORRECT:
        error = OutputError(
            output="0",
            mismatched=128,
            total=8192,
            max_abs=0.5,
            max_rel=2.0,
            reference_max_abs=1e-7,
            first=(((63, 0), 0.25, None), ((63, 1), 0.125, 0.75)),
            pattern="all of row 63",
        )
        values["correctness"] = Correctness(
            trials=2, passed=0, tolerance="4 x float32's own error", errors=(error,), worst_ratio=1e6
        )
    if verdict is Verdict.TIMEOUT:
        values["rule"] = "check"
    if verdict is Verdict.REJECTED:
        values["rule"] = "no custom kernel"
    return Evaluation.model_validate({**values, **changes})


def gpu_profile(**changes: Any) -> Profile:
    metrics = [
        Metric(name="gpu__time_duration.sum", value=606000, unit="ns"),
        Metric(name="dram__bytes_read.sum", value=98304, unit="byte"),
        Metric(name="dram__bytes_write.sum", value=32768, unit="byte"),
        Metric(name="launch__registers_per_thread", value=47, unit="register/thread"),
        Metric(name="smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio", value=7.5, unit="warp"),
    ]
    own = Launch(
        index=3,
        name="softmax_kernel",
        grid=(64, 1, 1),
        block=(256, 1, 1),
        duration_us=606.0,
        metrics={metric.name: metric for metric in metrics},
        stalls={"wait": 0.1, "long_scoreboard": 0.75},
    )
    values: dict[str, Any] = {
        "kernel": "k",
        "device": GPU,
        "metric_set": "core",
        "tool": "ncu 2025.3.1",
        "launches": (own, Launch(index=4, name="elementwise_of_torch", own=False)),
        "roofline": Roofline(bytes=65536, floor_us=303.0, bound="memory", share_of_floor=0.5),
        "hot_lines": (HotLine(file="kernel.cu", line=13, share=0.411, stalls={"long_scoreboard": 0.97}),),
        "notes": ("NOTE-MARK",),
    }
    return Profile.model_validate({**values, **changes})


def cpu_profile() -> Profile:
    return Profile(
        kernel="k",
        device=CPU,
        metric_set="core",
        tool="cpu counters",
        unavailable="COUNTERS-MARK",
        roofline=Roofline(
            bytes=65536,
            floor_us=303.0,
            bound="memory",
            share_of_floor=0.5,
            achieved_bytes_per_s=1e10,
            achieved_flops_per_s=2e9,
        ),
        remarks=(
            Remark(file="kernel.cpp", line=10, kind="vectorized", message="loop vectorized"),
            Remark(file="kernel.cpp", line=10, kind="missed", message="REMARK-MARK"),
        ),
    )
