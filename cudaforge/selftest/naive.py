"""The conventional check, as published benchmarks do it: what every exploit of the suite fools.

Reference and candidate share one process; the seed is always 42; expected outputs are alive while the candidate
runs; values are compared by allclose at 1e-2; the time is a mean over calls on the same inputs, by a clock that the
candidate can reach; the verdict is the last line of JSON on standard output. Nothing here is meant to be safe: it
exists so that "caught" can be told from "would have failed anywhere".

    python -m cudaforge.selftest.naive TASK.py KERNEL_DIR --device cpu|cuda

The child runs in a session of its own, below a process of ours that it may kill, in temporary folders for HOME and
TMPDIR. No more than that protects the machine: every kernel of the suite bounds what it does by itself.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from cudaforge.kernel import Kernel

SEED = 42
TRIALS = 5
WARM_UPS = 3
CALLS = 20
TAIL_BYTES = 1 << 16
STARTED_WITHIN_S = 120.0


class NaiveResult(BaseModel):
    """What the conventional check says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: bool
    speedup: float = 0.0
    error: str = ""


class Harness:
    """A process that has torch imported and forks one child for each kernel, which saves seconds a kernel."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.folder = Path(tempfile.mkdtemp(prefix="cudaforge-naive-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.count = 0

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and deletes what the children left in their folders."""
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def judge(self, task: Path, kernel: Kernel, timeout: float = 120.0) -> NaiveResult:
        """Checks one kernel against a task's file. A candidate that ends its harness is judged by what it printed."""
        package = self.folder / "kernels" / kernel.id
        if not package.exists():
            kernel.write_package(package)
        self.count += 1
        work = self.folder / f"run{self.count}"
        work.mkdir()
        stdout = work / "stdout"
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        order = {"task": str(task.resolve()), "package": str(package), "work": str(work), "timeout": timeout}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        if process.stdout.read(1) != b"." or process.poll() is not None:
            self._stop()  # the candidate has killed it; the next one gets a new one
        result = _last_json(stdout)
        shutil.rmtree(work, ignore_errors=True)
        return result

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            command = [sys.executable, "-m", __name__, "--serve", "--device", self.device]
            root = str(Path(__file__).resolve().parents[2])
            path = os.pathsep.join([root, str(Path(root) / "profiling"), os.environ.get("PYTHONPATH", "")])
            programs = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # ninja
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path, "PATH": programs},
            )
            assert self.process.stdout is not None
            ready, _, _ = select.select([self.process.stdout], [], [], STARTED_WITHIN_S)
            if not ready or self.process.stdout.read(1) != b".":
                self._stop()
                raise RuntimeError("The naive harness does not start: torch cannot be imported?")
        return self.process

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self.process = None


def judge(task: Path, kernel: Kernel, device: str = "cpu", timeout: float = 120.0) -> NaiveResult:
    """What the conventional check says of a kernel, in processes of its own."""
    with Harness(device) as harness:
        return harness.judge(task, kernel, timeout)


def _last_json(stdout: Path) -> NaiveResult:
    """The last line that reads as a result: that anybody may print one is a part of what is naive."""
    if not stdout.exists():
        return NaiveResult(correct=False, error="The harness printed nothing.")
    with stdout.open("rb") as file:
        file.seek(max(0, stdout.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                return NaiveResult.model_validate_json(line)
    return NaiveResult(correct=False, error="The harness printed no result: " + " | ".join(lines[-3:])[-500:])


# -- in the harness's process ------------------------------------------------------------------------------------


def serve(device: str) -> None:
    """Forks a child for each order on standard input, and answers with one byte when it has ended."""
    import torch  # noqa: F401 - warmed here, used in the children; no operator runs before a fork

    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        work = Path(order["work"])
        with (work / "stdout").open("wb") as file:
            child = _fork(Path(order["task"]), Path(order["package"]), device, work, file.fileno())
        _wait(child, order["timeout"])
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()


def _wait(child: int, timeout: float) -> None:
    """Waits for the child, then ends whatever is left of its session's first group."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def _fork(task: Path, package: Path, device: str, work: Path, stdout: int | None) -> int:
    """A child in a session of its own that checks one kernel, prints a line of JSON and ends."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody outlives a harness that was killed
        if stdout is not None:
            os.dup2(stdout, 1)
            os.dup2(stdout, 2)
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)
        for name in ("home", "tmp", "cwd"):
            (work / name).mkdir(parents=True, exist_ok=True)
        os.environ.update(HOME=str(work / "home"), TMPDIR=str(work / "tmp"), CUDAFORGE_HOME=str(work / "home"))
        for name in ("TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
            os.environ.pop(name, None)  # caches of the user's own are not for such kernels
        tempfile.tempdir = None
        os.chdir(work / "cwd")
        result = examine(task, package, device)
        print("\n" + json.dumps(result), flush=True)
        atexit._run_exitfuncs()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def examine(task: Path, package: Path, device: str) -> dict[str, Any]:
    """The check itself: one process, known seeds, allclose, a mean of times on the same inputs."""
    import torch

    try:
        reference_module = _import("naive_task", task)
        candidate_module = _import("naive_kernel", package / "__init__.py", package)
        init = reference_module.get_init_inputs()
        torch.manual_seed(SEED)
        reference = reference_module.Model(*init).to(device)
        torch.manual_seed(SEED)
        candidate = candidate_module.ModelNew(*init).to(device)
        trials = []
        for trial in range(TRIALS):
            torch.manual_seed(SEED + trial)
            trials.append([x.to(device) if isinstance(x, torch.Tensor) else x for x in reference_module.get_inputs()])
        kept = []
        with torch.no_grad():
            for trial, inputs in enumerate(trials):
                expected = first(reference(*inputs))
                kept.append(expected)
                got = first(candidate(*inputs))
                if not is_close(expected, got):
                    return {"correct": False, "speedup": 0.0, "error": f"trial {trial}: values differ"}
            eager = mean_time(reference, trials[0], device)
            mine = mean_time(candidate, trials[0], device)
        return {"correct": True, "speedup": eager / max(mine, 1e-9), "error": ""}
    except Exception as error:
        return {"correct": False, "speedup": 0.0, "error": f"{type(error).__name__}: {error}"[:500]}


def first(out: Any) -> Any:
    """The first of several outputs: few harnesses look at the others."""
    return out[0] if isinstance(out, tuple | list) else out


def is_close(expected: Any, got: Any) -> bool:
    """One tolerance for everything, and whatever dtype comes is cast."""
    import torch

    return bool(torch.allclose(expected.float(), got.float(), atol=1e-2, rtol=1e-2))


def mean_time(call: Any, inputs: list[Any], device: str) -> float:
    """Seconds a call: the mean over calls on the same inputs."""
    import torch

    for _ in range(WARM_UPS):
        call(*inputs)
    if device != "cpu":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(CALLS):
            call(*inputs)
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / CALLS
    started = time.perf_counter()
    for _ in range(CALLS):
        call(*inputs)
    return (time.perf_counter() - started) / CALLS


def _import(name: str, file: Path, package: Path | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(package)] if package else None
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """One kernel whose result goes to standard output, or (--serve) orders from a Harness."""
    parser = argparse.ArgumentParser(description="The conventional check that the suite's exploits fool.")
    parser.add_argument("task", type=Path, nargs="?")
    parser.add_argument("kernel", type=Path, nargs="?")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Two spinning threads on one busy core wait for each other's time slice: milliseconds a call, for both sides.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if options.serve:
        serve(options.device)
        return
    if options.task is None or options.kernel is None:
        parser.error("TASK.py and KERNEL_DIR are needed")
    with tempfile.TemporaryDirectory(prefix="cudaforge-naive-") as folder:
        package = Kernel.load(options.kernel).write_package(Path(folder) / "kernel")
        _wait(_fork(options.task.resolve(), package, options.device, Path(folder) / "run", None), options.timeout)


if __name__ == "__main__":
    main()
