"""What is under us: the device as it reads itself, versions, measured ceilings."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cudaforge
from cudaforge.engine.builder import compiler_version
from cudaforge.engine.sandbox import environment
from cudaforge.errors import EvaluatorError
from cudaforge_profiling.devices import cpu_device, cuda_device, nvml_facts, nvml_handle
from cudaforge_profiling.types import Ceilings, Device

CEILINGS_TIMEOUT_S = 300


def resolve(device: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:1` as `cpu` or `cuda:N`. EvaluatorError where there is no such GPU."""
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    name, _, index = device.partition(":")
    if name != "cuda" or (index and not index.isdigit()):
        raise EvaluatorError(f"{device!r} is no device.", "Use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise EvaluatorError(f"{device} is not here: torch sees {count} CUDA devices.", "Run `cudaforge doctor`.")
    return f"cuda:{index or 0}"


def gpu_count() -> int:
    """How many GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def lease_name(device: str) -> str:
    """What every process on this machine calls a device: a GPU's UUID, or `cpu`."""
    if device == "cpu":
        return device
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def describe(device: str, cache: Path) -> Device:
    """The device with its measured ceilings (measured once, then kept in `cache`)."""
    if device == "cpu":
        found = cpu_device()
    else:
        import torch

        torch.cuda.init()
        index = int(device.partition(":")[2] or 0)
        properties = torch.cuda.get_device_properties(index)
        facts = {name: getattr(properties, name) for name in dir(properties) if not name.startswith("_")}
        found = cuda_device(facts, nvml_facts(str(properties.uuid)), index=index)
    return found.model_copy(update={"ceilings": _ceilings(device, found, cache)})


def _ceilings(device: str, found: Device, cache: Path) -> Ceilings:
    import torch

    name = "".join(c if c.isalnum() else "-" for c in f"{found.name}-{found.units}-{torch.__version__}")
    path = cache / "ceilings" / f"{name}.json"
    if path.is_file():
        return Ceilings.model_validate_json(path.read_text())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cudaforge.engine.ceilings", "--device", device],
            capture_output=True,
            text=True,
            timeout=CEILINGS_TIMEOUT_S,
            env=environment(cache),
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise EvaluatorError(f"measuring {device} took longer than {CEILINGS_TIMEOUT_S} s.") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluatorError(f"{device} cannot be measured: {last}", "Run `cudaforge doctor`.") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, done.stdout)
    return Ceilings.model_validate_json(done.stdout)


def versions(device: Device) -> dict[str, str]:
    """Versions that a number depends on."""
    import torch
    import tvm_ffi

    found = {
        "cudaforge": cudaforge.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tvm-ffi": tvm_ffi.__version__,
    }
    if device.kind == "cuda":
        found |= {"cuda": str(torch.version.cuda), "driver": str(device.details.get("driver", ""))}
        found["nvcc"] = compiler_version(os.environ.get("CUDACXX", "nvcc"))
    else:
        found["g++"] = compiler_version(os.environ.get("CXX", "g++"))
    return found


def prove_usable(device: str) -> None:
    """After a candidate has gone: the GPU still computes for us. EvaluatorError where it does not."""
    if device == "cpu":
        return
    import torch

    try:
        if int(torch.ones(1024, device=device).sum()) != 1024:
            raise RuntimeError("a sum of ones came out wrong")
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise EvaluatorError(f"{device} is not usable: {error}", "Restart the evaluator; see `nvidia-smi`.") from None


class Throttle:
    """Whether a GPU is being slowed down by heat or by its power supply: NVML's reasons, read only.

    Running into the power limit of its own is how a busy GPU works, and does not count.
    """

    REASONS = {0x08: "hardware slowdown", 0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake"}

    def __init__(self, device: str) -> None:
        self._handle: Any = None
        if device == "cpu":
            return
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            self._handle = nvml_handle(str(torch.cuda.get_device_properties(device).uuid))
        except Exception:  # NVML is an aid: without it nothing is watched
            self._handle = None

    def reasons(self) -> str:
        """The reasons in force now, in words; empty where there are none or nobody knows."""
        if self._handle is None:
            return ""
        import pynvml

        try:
            mask = int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        except (pynvml.NVMLError, AttributeError):
            return ""
        return ", ".join(text for bit, text in self.REASONS.items() if mask & bit)


@contextlib.contextmanager
def nvtx_range(name: str) -> Iterator[None]:
    """Marks a stage for Nsight Systems; costs nothing where nobody listens, or nvtx is not installed."""
    try:
        import nvtx
    except ImportError:  # an evaluator's box may lack it
        yield
        return
    with nvtx.annotate(name, domain="cudaforge"):
        yield


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)
