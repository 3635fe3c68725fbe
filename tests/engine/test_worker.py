"""Lanes and builders: what runs beside what, and which device measures which task."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.tasks import KERNEL_CPP, cpp, scale_add

from cudaforge.engine import local
from cudaforge.engine.builder import settings_for
from cudaforge.engine.local import LocalEvaluator
from cudaforge.engine.supervisor import Supervisor
from cudaforge.engine.worker import Worker
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import Build, EvaluateOptions, EvaluateRequest, Evaluation, Verdict
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task
from cudaforge_profiling.devices import cpu_device
from cudaforge_profiling.types import Device

GPU = Device(kind="cuda", name="Test GPU", arch="sm_90a", units=1, memory_bytes=1 << 30, cache_bytes=1 << 20)
BUILD_S, MEASURE_S = 0.3, 0.1


class FakeWorker:
    """Takes as long as a build or a measurement; keeps when it did what, for all workers of a test."""

    done: list[tuple[str, str, float, float]] = []
    gpus = 2
    builders_fail = builders_are_late = False
    asked: list[dict[str, Any]] = []

    def __init__(self, role: str, home: Path, device: str) -> None:
        self.role, self.device, self.stopped = role, device, 0

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        if self.role == "builder":
            time.sleep(BUILD_S)
            self.done.append(("build", message["kernel"]["files"]["kernel.cu"], started, time.monotonic()))
            if self.builders_fail:
                raise EvaluatorError("the evaluator's process ended (exit code -9).")
            if self.builders_are_late:
                return {"timeout": True, "seconds": BUILD_S}
            return {"build": Build(seconds=BUILD_S).model_dump(mode="json"), "seconds": BUILD_S}
        if "request" not in message:
            return {"where": "cuda:0", "gpus": self.gpus, "device": GPU.model_dump(mode="json")}
        time.sleep(MEASURE_S)
        request = message["request"]
        self.asked.append(message)
        self.done.append((self.device, request["task"]["name"], started, time.monotonic()))
        found = Evaluation(
            verdict=Verdict.INCORRECT,
            reason="x",
            task="t",
            kernel="k",
            device=GPU,
            stages_s={"build": 0.0, "check": 0.1},
        )
        return {"result": found.model_dump_json()}

    def stop(self, grace_s: float = 10.0) -> str:
        self.stopped += 1
        return "exit code 0"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(local, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "done", [])
    monkeypatch.setattr(FakeWorker, "asked", [])
    return FakeWorker


def module_with_extension() -> Kernel:
    """A kernel in a single file, whose function load_inline compiles when it is imported."""
    source = """
import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

SOURCE = '''
#include <torch/extension.h>
void scale_add(torch::Tensor x, torch::Tensor w, torch::Tensor y, torch::Tensor out) {
  const float *a = x.data_ptr<float>(), *b = w.data_ptr<float>(), *c = y.data_ptr<float>();
  float* o = out.data_ptr<float>();
  for (int64_t r = 0; r < x.size(0); ++r)
    for (int64_t i = 0; i < x.size(1); ++i) o[r * x.size(1) + i] = a[r * x.size(1) + i] * b[i] + c[r * x.size(1) + i];
}
'''
extension = load_inline("scale_add_extension", cpp_sources=[SOURCE], functions=["scale_add"])

class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        out = torch.empty_like(x)
        extension.scale_add(x, self.weight, y, out)
        return out
"""
    return Kernel.of(Language.MODULE, {"model.py": source})


def request(key: str, task: str = "one") -> EvaluateRequest:
    source = f"// {key}"
    kernel = Kernel.of(Language.CUDA, {"kernel.cu": source, "model.py": "class ModelNew: ..."})
    return EvaluateRequest(key=key, task=Task.parse(f"# {task}\n{scale_add().source}", name=task), kernel=kernel)


def test_builds_run_beside_the_lane_and_measurements_one_after_the_other(
    tmp_path: Path, fake: type[FakeWorker]
) -> None:
    async def four() -> list[Evaluation]:
        evaluator = LocalEvaluator(tmp_path, "cuda:0", builders=4)
        try:
            return await asyncio.gather(*(evaluator.evaluate(request(f"k{i}")) for i in range(4)))
        finally:
            await evaluator.close()

    found = asyncio.run(four())
    builds = [entry for entry in fake.done if entry[0] == "build"]
    measured = sorted((entry for entry in fake.done if entry[0] == "cuda:0"), key=lambda entry: entry[2])
    assert len(builds) == len(measured) == 4
    assert max(started for *_, started, _ in builds) < min(ended for *_, ended in builds)  # all at once
    assert all(before[3] <= after[2] for before, after in itertools.pairwise(measured))
    assert all(e.stages_s["build"] == BUILD_S and e.build == Build(seconds=BUILD_S) for e in found)
    assert max(e.stages_s["wait for device"] for e in found) > 2 * MEASURE_S


def test_a_task_stays_with_its_device_and_devices_work_side_by_side(tmp_path: Path, fake: type[FakeWorker]) -> None:
    async def six() -> None:
        evaluator = LocalEvaluator(tmp_path, "auto", builders=4)
        await asyncio.gather(*(evaluator.evaluate(request(f"k{i}", ("one", "two")[i % 2])) for i in range(6)))
        await evaluator.close()

    asyncio.run(six())
    lanes = {(device, task) for device, task, *_ in fake.done if device != "build"}
    assert {task for _, task in lanes} == {"one", "two"} and len(lanes) == 2
    assert {device for device, _ in lanes} == {"auto", "cuda:1"}


def test_where_a_builder_fails_the_lane_builds(tmp_path: Path, fake: type[FakeWorker], monkeypatch: Any) -> None:
    monkeypatch.setattr(fake, "builders_fail", True)

    async def one() -> Evaluation:
        evaluator = LocalEvaluator(tmp_path, "cuda:0", builders=4)
        return await evaluator.evaluate(request("k"))

    assert asyncio.run(one()).verdict is Verdict.INCORRECT


def test_what_a_builder_could_not_build_in_time_is_not_tried_again(
    tmp_path: Path, fake: type[FakeWorker], monkeypatch: Any
) -> None:
    async def one() -> Evaluation:
        evaluator = LocalEvaluator(tmp_path, "cuda:0")
        return await evaluator.evaluate(request("k"))

    assert asyncio.run(one()).stages_s["build"] == BUILD_S and not fake.asked[-1]["built_late"]
    monkeypatch.setattr(fake, "builders_are_late", True)
    assert asyncio.run(one()).stages_s["build"] == BUILD_S and fake.asked[-1]["built_late"]


def test_a_late_build_is_a_timeout(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, "cpu")
    found = supervisor.evaluate(scale_add(), cpp(), EvaluateOptions(build_timeout_s=7), built_late=True)
    assert (found.verdict, found.rule, "7 s" in found.reason) == (Verdict.TIMEOUT, "build", True)
    supervisor.close()


def test_slots_count_builders_that_are_busy_too(tmp_path: Path, fake: type[FakeWorker]) -> None:
    async def count() -> tuple[int, int]:
        evaluator = LocalEvaluator(tmp_path, "auto", builders=4)
        asking = asyncio.create_task(evaluator.evaluate(request("k")))
        await asyncio.sleep(BUILD_S / 2)
        during = await evaluator.slots()
        await asking
        return during, await evaluator.slots()

    assert asyncio.run(count()) == (6, 6)  # two lanes


def test_one_key_is_one_question_also_at_the_same_time(tmp_path: Path, fake: type[FakeWorker]) -> None:
    async def twice() -> list[Evaluation]:
        evaluator = LocalEvaluator(tmp_path, "cuda:0", builders=4)
        return await asyncio.gather(evaluator.evaluate(request("k")), evaluator.evaluate(request("k")))

    first, second = asyncio.run(twice())
    assert first == second and len([entry for entry in fake.done if entry[0] == "cuda:0"]) == 1


def test_a_caller_who_gives_up_ends_what_it_asked_for(tmp_path: Path, fake: type[FakeWorker]) -> None:
    async def cancelled() -> tuple[int, Evaluation]:
        evaluator = LocalEvaluator(tmp_path, "cuda:0", builders=4)
        asking = asyncio.create_task(evaluator.evaluate(request("k")))
        await asyncio.sleep(BUILD_S + MEASURE_S / 2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        worker: Any = evaluator.lanes[0].worker
        return worker.stopped, await evaluator.evaluate(request("next"))

    stopped, found = asyncio.run(cancelled())
    assert stopped == 1 and found.verdict is Verdict.INCORRECT


def test_a_builder_leaves_binary_or_diagnostics_in_the_cache(tmp_path: Path) -> None:
    worker = Worker("builder", tmp_path, "cpu")
    device = cpu_device().model_dump(mode="json")

    def build(kernel: Kernel) -> dict[str, Any]:
        return worker.ask({"kernel": kernel.model_dump(mode="json"), "device": device, "timeout_s": 120})

    good, bad = cpp(), cpp(KERNEL_CPP.replace("rows =", "rows =="))
    try:
        first, again = build(good), build(good)
        failed, failed_again = build(bad), build(bad)
    finally:
        worker.stop()
    assert not first["build"]["cached"] and again["build"]["cached"] and again["seconds"] < first["seconds"]
    assert not failed["build"]["cached"] and failed_again["build"]["cached"]
    (kept,) = (tmp_path / "cache" / "build").glob("*-failed/failure.json")
    assert any(d["severity"] == "error" and d["line"] for d in json.loads(kept.read_text())["diagnostics"])


def test_a_builder_compiles_what_a_module_calls_load_inline_for(tmp_path: Path) -> None:
    kernel = module_with_extension()
    worker = Worker("builder", tmp_path, "cpu")
    supervisor = Supervisor(tmp_path, "cpu")
    try:
        message = {"kernel": kernel.model_dump(mode="json"), "device": supervisor.device.model_dump(mode="json")}
        worker.ask({**message, "timeout_s": 120})
        (library,) = (tmp_path / "cache" / "build").glob(f"{kernel.id}-*/extensions/*/*.so")
        written = library.stat().st_mtime_ns
        found = supervisor.evaluate(scale_add(), kernel, EvaluateOptions(trials=2, time_budget_s=0.01))
        assert found.passed, found.reason
        assert library.stat().st_mtime_ns == written  # the lane had nothing left to compile
    finally:
        worker.stop()
        supervisor.close()


def test_load_inline_builds_for_the_device_without_asking_one() -> None:
    assert settings_for(GPU) == {"TORCH_CUDA_ARCH_LIST": "9.0a"}
    assert settings_for(GPU.model_copy(update={"arch": "sm_120a"})) == {"TORCH_CUDA_ARCH_LIST": "12.0a"}
    assert settings_for(GPU.model_copy(update={"arch": "sm_86"})) == {"TORCH_CUDA_ARCH_LIST": "8.6"}
    assert settings_for(cpu_device()) == {}
