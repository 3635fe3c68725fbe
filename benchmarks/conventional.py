"""A conventional harness, written for comparison: one fresh process a kernel, which builds, checks and times it itself.

    python benchmarks/conventional.py --task TASK.py --kernel KERNEL.py --device cuda:0 --out FILE.json [--profile]

As KernelBench-like harnesses work: `KERNEL.py` calls load_inline while it is imported, five seeds are compared with
eager in the same process by allclose, then calls are timed with CUDA events (perf_counter on the CPU), warm. A profile
is a second fresh process below Nsight Compute, which builds again in a fresh folder (`--profile`: build and call, no
check). Nothing here protects anybody from a kernel. Of our engine only the lease is used: both sides, and whoever else
measures on this machine, take turns. On the CPU a build holds it, too.

FILE.json holds the verdict and the seconds of each stage: `start` (from --started, the parent's CLOCK_MONOTONIC, to
torch and the device ready), `build`, `wait` (for a turn on the device), `check`, `timing`, `calls`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

SEED, TRIALS = 42, 5
TOLERANCE = 1e-4
"""Absolute and relative, in float32."""
WARM_UP, CALLS = 5, 20
PROFILED_CALLS = 3
SECTIONS = (
    "LaunchStats",
    "Occupancy",
    "SpeedOfLight",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "SchedulerStats",
    "WarpStateStats",
    "InstructionStats",
)
"""What ncu collects, in about two dozen passes."""
LAUNCHES = 20
"""Launches that ncu looks at, whatever they are."""


# -- the parent's side -------------------------------------------------------------------------------------------


@dataclass
class Conventional:
    """What the conventional harness found. `stages_s` and `profile_s` are seconds a stage and add up to the whole."""

    verdict: str
    stages_s: dict[str, float]
    reason: str = ""
    speedup: float | None = None
    """Eager's mean time over the kernel's."""
    time_us: float | None = None
    profile_s: dict[str, float] = field(default_factory=dict)
    profile_failed: str = ""

    @property
    def seconds(self) -> float:
        """Building, checking and timing, without waiting for others' turns."""
        return sum(s for name, s in self.stages_s.items() if name != "wait")

    @property
    def profile_seconds(self) -> float | None:
        """The profile's process, likewise; None where there was none."""
        return sum(s for name, s in self.profile_s.items() if name != "wait") if self.profile_s else None


def run(
    task: str,
    kernel: str,
    device: str,
    folder: Path,
    *,
    lease: str = "",
    ncu: str = "",
    calls: int = CALLS,
    timeout_s: float = 400.0,
) -> Conventional:
    """Judges one kernel (texts of both files); on a GPU with `ncu` a kernel that passes is profiled as well.

    `folder` must not exist yet. `lease` is what machine.lease_name calls the device. `timeout_s` holds for
    each process.
    """
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(task)
    (folder / "kernel.py").write_text(kernel)
    stages, said, log = _process(folder, "evaluate", device, [], lease, calls, timeout_s)
    found = Conventional(
        verdict=str(said.get("verdict", "RUNTIME_ERROR")),
        stages_s=stages,
        reason=str(said.get("reason") or log),
        speedup=said.get("speedup"),
        time_us=said.get("time_us"),
    )
    if found.verdict == "PASSED" and ncu:
        wrapper = [ncu, "--target-processes", "all", "--launch-count", str(LAUNCHES)]
        wrapper += [part for section in SECTIONS for part in ("--section", section)]
        wrapper += ["-f", "-o", str(folder / "report")]
        found.profile_s, said, log = _process(folder, "profile", device, wrapper, lease, calls, timeout_s)
        if said.get("verdict") != "PASSED":
            found.profile_failed = str(said.get("reason") or log)
        elif not (folder / "report.ncu-rep").exists():
            found.profile_failed = f"no report: {log}"
    return found


def _process(
    folder: Path, name: str, device: str, wrapper: list[str], lease: str, calls: int, timeout_s: float
) -> tuple[dict[str, float], dict[str, Any], str]:
    """A fresh interpreter with a fresh build folder: seconds of its stages, what it said, the end of its output."""
    result = folder / f"{name}.json"
    temporary = folder / f"{name}-tmp"  # ncu wants one of its own
    temporary.mkdir()
    environment = {
        **os.environ,
        "TORCH_EXTENSIONS_DIR": str(folder / f"{name}-build"),
        "TMPDIR": str(temporary),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",  # ninja
    }
    started = time.monotonic()
    command = [*wrapper, sys.executable, str(Path(__file__).resolve()), "--task", str(folder / "task.py")]
    command += ["--kernel", str(folder / "kernel.py"), "--device", device, "--out", str(result)]
    command += ["--started", repr(started), "--calls", str(calls)]
    command += ["--lease", lease] if lease else []
    command += ["--profile"] if name == "profile" else []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # ends whole: compilers and what a tool has started included
    )
    try:
        log = process.communicate(timeout=timeout_s)[0][-2000:]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"timeout": timeout_s}, {"verdict": "TIMEOUT", "reason": f"longer than {timeout_s:g} s"}, ""
    seconds = time.monotonic() - started
    said: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    stages: dict[str, float] = said.get("stages_s", {})
    # What is left: the tool's own work before and after (ncu writes its report), and the end of the process.
    stages["rest"] = max(seconds - sum(stages.values()), 0.0)
    return stages, said, log


# -- the process that judges -------------------------------------------------------------------------------------


class Failed(Exception):  # noqa: N818 - an outcome that becomes a verdict
    """The kernel's verdict is settled."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


class Judge:
    """Builds, checks and times one kernel in this process."""

    def __init__(self, device: str, leased_as: str) -> None:
        self.device, self.leased_as = device, leased_as
        self.stages_s: dict[str, float] = {}
        self.found: dict[str, Any] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books the seconds of a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + time.monotonic() - started

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The device, alone."""
        if not self.leased_as:
            yield
            return
        from cudaforge.engine.lease import lease

        with contextlib.ExitStack() as stack:
            with self.stage("wait"):
                stack.enter_context(lease(self.leased_as))
            yield

    def evaluate(self, task_file: Path, kernel_file: Path, calls: int, *, profile: bool) -> None:
        """All stages; raises Failed."""
        task = _load(task_file, "task")
        if self.device == "cpu":
            with self.turn():
                self._judge(task, self._build(kernel_file), calls, profile=profile)
        else:
            kernel = self._build(kernel_file)
            with self.turn():
                self._judge(task, kernel, calls, profile=profile)

    def _build(self, path: Path) -> ModuleType:
        with self.stage("build"):
            try:
                return _load(path, "kernel")
            except Exception as error:
                raise Failed("BUILD_FAILED", f"{type(error).__name__}: {error}"[:2000]) from None

    def _judge(self, task: ModuleType, kernel: ModuleType, calls: int, *, profile: bool) -> None:
        import torch

        try:
            with torch.no_grad():
                with self.stage("calls" if profile else "check"):
                    eager, mine = (self._model(cls, task) for cls in (task.Model, kernel.ModelNew))
                    if profile:
                        self._call(mine, task)
                    else:
                        self._check(eager, mine, task)
                if not profile:
                    with self.stage("timing"):
                        self._time(eager, mine, task, calls)
        except Failed:
            raise
        except Exception as error:
            raise Failed("RUNTIME_ERROR", f"{type(error).__name__}: {error}"[:2000]) from None

    def _model(self, cls: Any, task: ModuleType) -> Any:
        import torch

        torch.manual_seed(SEED)
        return cls(*task.get_init_inputs()).to(self.device).eval()

    def _inputs(self, task: ModuleType, seed: int) -> list[Any]:
        """Made on the CPU and moved, as such harnesses do."""
        import torch

        torch.manual_seed(seed)
        return [i.to(self.device) if isinstance(i, torch.Tensor) else i for i in task.get_inputs()]

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def _check(self, eager: Any, mine: Any, task: ModuleType) -> None:
        import torch

        for trial in range(TRIALS):
            inputs = self._inputs(task, SEED + trial)
            expected, got = eager(*inputs), mine(*inputs)
            self._wait()
            if expected.shape != got.shape or not torch.allclose(expected, got, atol=TOLERANCE, rtol=TOLERANCE):
                largest = float((expected - got).abs().max()) if expected.shape == got.shape else float("nan")
                raise Failed("INCORRECT", f"trial {trial}: largest difference {largest:.3g}")

    def _time(self, eager: Any, mine: Any, task: ModuleType, calls: int) -> None:
        inputs = self._inputs(task, SEED)
        eager_us, mine_us = (self._mean_us(partial(model, *inputs), calls) for model in (eager, mine))
        self.found |= {"time_us": mine_us, "speedup": eager_us / mine_us}

    def _mean_us(self, call: Callable[[], object], calls: int) -> float:
        """Microseconds of a call, mean of `calls`, after a warm-up."""
        import torch

        for _ in range(WARM_UP):
            call()
        self._wait()
        times = []
        for _ in range(calls):
            if self.device == "cpu":
                started = time.perf_counter()
                call()
                times.append((time.perf_counter() - started) * 1e6)
            else:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call()
                end.record()
                torch.cuda.synchronize()
                times.append(start.elapsed_time(end) * 1e3)
        return statistics.fmean(times)

    def _call(self, mine: Any, task: ModuleType) -> None:
        inputs = self._inputs(task, SEED)
        for _ in range(PROFILED_CALLS):
            mine(*inputs)
        self._wait()


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Judges a kernel in this process and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--started", type=float, default=time.monotonic(), help="CLOCK_MONOTONIC of the parent")
    parser.add_argument("--calls", type=int, default=CALLS, help="timed calls")
    parser.add_argument("--lease", default="", help="the device's name for our lease, held while it is used")
    parser.add_argument("--profile", action="store_true", help="build and call alone, for a profiler around this")
    options = parser.parse_args()
    judge = Judge(options.device, options.lease)
    import torch
    import torch.utils.cpp_extension

    torch.zeros(1).to(options.device).cpu()  # the context is there; nothing was launched that a profiler would look at
    judge.stages_s["start"] = time.monotonic() - options.started
    try:
        judge.evaluate(options.task, options.kernel, options.calls, profile=options.profile)
        judge.found["verdict"] = "PASSED"
    except Failed as failed:
        judge.found |= {"verdict": failed.verdict, "reason": str(failed)}
    options.out.write_text(json.dumps({**judge.found, "stages_s": judge.stages_s}))


if __name__ == "__main__":
    main()
