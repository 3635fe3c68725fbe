"""Devices as they describe themselves: nothing is looked up by a product's name."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cudaforge_profiling.types import Device

# What g++ -march=native makes a difference with, widest first.
_INSTRUCTION_SETS = (
    *("amx_bf16", "amx_int8", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_fp16", "avx512_vnni"),
    *("avx_vnni", "avx2", "avx", "fma", "f16c", "sse4_2"),
    *("sve2", "sve", "i8mm", "bf16", "asimddp", "asimdhp", "asimd"),
)


def cpu_device(root: Path = Path("/")) -> Device:
    """This machine's processor, from /proc and /sys below `root`.

    `units` are the cores that this process may use: its affinity, and its control group's quota where that is less.
    Nothing that changes from one reading to the next (the current clock) is in it, so that readings compare equal.
    """
    cpuinfo = _text(root / "proc/cpuinfo")
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", cpuinfo, re.MULTILINE))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root)
    caches = _caches(root / "sys/devices/system/cpu/cpu0/cache")
    details: dict[str, str | int | float] = {
        "logical_cpus": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or os.cpu_count() or 1,
        **{f"{name}_bytes": size for name, size in caches.items()},
    }
    if quota is not None:
        details["cpu_quota"] = quota
    if fields.get("cache_alignment", "").isdigit():
        details["cache_line_bytes"] = int(fields["cache_alignment"])
    return Device(
        kind="cpu",
        name=fields.get("model name") or platform.processor() or platform.machine(),
        arch=" ".join(name for name in _INSTRUCTION_SETS if name in flags) or platform.machine(),
        units=max(1, min(allowed, math.ceil(quota)) if quota else allowed),
        memory_bytes=_memory_bytes(root),
        cache_bytes=next((caches[level] for level in ("l3", "l2", "l1d") if level in caches), 0),
        details=details,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _memory_bytes(root: Path) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group (v2) grants; None where it is not limited."""
    words = _text(root / "sys/fs/cgroup/cpu.max").split()
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit():
        return None
    return round(int(words[0]) / int(words[1]), 2)


def _caches(folder: Path) -> dict[str, int]:
    """l1d, l2, l3 to bytes, of one core's view."""
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_text(index / name) for name in ("level", "type", "size"))
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if match and level and kind != "Instruction":
            name = f"l{level}d" if level == "1" else f"l{level}"
            sizes[name] = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
    return sizes


# torch.cuda.get_device_properties attribute -> name in Device.details
_PROPERTIES = {
    "shared_memory_per_multiprocessor": "shared_memory_per_sm_bytes",
    "shared_memory_per_block_optin": "shared_memory_per_block_optin_bytes",
    "shared_memory_per_block": "shared_memory_per_block_bytes",
    "regs_per_multiprocessor": "registers_per_sm",
    "max_threads_per_multi_processor": "threads_per_sm",
    "max_threads_per_block": "threads_per_block",
    "warp_size": "warp_size",
    "memory_bus_width": "memory_bus_bits",
}


def cuda_device(properties: Mapping[str, Any], nvml: Mapping[str, str | int] | None = None, index: int = 0) -> Device:
    """A GPU, from itself.

    Args:
        properties: attributes of `torch.cuda.get_device_properties` by name (`name`, `major`, `minor`,
            `multi_processor_count`, `total_memory`, `L2_cache_size`, ...); `clock_rate` and `memory_clock_rate` are
            in kHz, as CUDA has them. What is absent is left out.
        nvml: what `nvml_facts` read, and wins where both know a thing; None asks NVML now, by the properties' `uuid`.

    Raises:
        KeyError: name, major or minor is missing.
    """
    major, minor = int(properties["major"]), int(properties["minor"])
    details: dict[str, str | int | float] = {"compute_capability": f"{major}.{minor}"}
    for key, name in _PROPERTIES.items():
        if properties.get(key):
            details[name] = int(properties[key])
    for key, name in (("clock_rate", "sm_clock_mhz"), ("memory_clock_rate", "memory_clock_mhz")):
        if properties.get(key):
            details[name] = round(int(properties[key]) / 1000)
    if nvml is None:
        nvml = nvml_facts(str(properties["uuid"])) if properties.get("uuid") else {}
    details.update(nvml)
    clock, width = details.get("memory_clock_mhz"), details.get("memory_bus_bits")
    if isinstance(clock, int) and isinstance(width, int):
        # Two transfers a clock, as for every memory that NVIDIA reports a clock of.
        details["memory_peak_gb_per_s"] = round(2 * clock * width / 8 / 1000)
    return Device(
        kind="cuda",
        name=str(properties["name"]),
        # The `a` is what wgmma, setmaxnreg and (on Blackwell) tcgen05 are compiled for.
        arch=f"sm_{major}{minor}{'a' if major >= 9 else ''}",
        index=index,
        units=int(properties.get("multi_processor_count") or 0),
        memory_bytes=int(properties.get("total_memory") or 0),
        cache_bytes=int(properties.get("L2_cache_size") or 0),
        details=details,
    )


def nvml_facts(uuid: str) -> dict[str, str | int]:
    """Driver, its CUDA version, highest clocks, bus width and power limit of the GPU with this UUID (with or without
    `GPU-`), as far as NVML tells; empty where there is no NVML. Only reads."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    facts: dict[str, str | int] = {}
    try:
        readings: dict[str, Callable[[], str | int]] = {
            "driver": lambda: str(pynvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": lambda: _cuda_version(pynvml.nvmlSystemGetCudaDriverVersion_v2()),
            "sm_clock_mhz": lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(nvml_handle(uuid), pynvml.NVML_CLOCK_SM)),
            "memory_clock_mhz": lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(nvml_handle(uuid), pynvml.NVML_CLOCK_MEM)),
            "memory_bus_bits": lambda: int(pynvml.nvmlDeviceGetMemoryBusWidth(nvml_handle(uuid))),
            "power_limit_w": lambda: round(pynvml.nvmlDeviceGetEnforcedPowerLimit(nvml_handle(uuid)) / 1000),
        }
        for key, read in readings.items():
            try:
                facts[key] = read()
            except pynvml.NVMLError:  # each is optional: MIG slices and virtual GPUs answer only some
                continue
    finally:
        pynvml.nvmlShutdown()
    return facts


def nvml_handle(uuid: str) -> Any:
    """NVML's handle of the GPU with this UUID (with or without `GPU-`), as torch's device properties give it. The
    caller has called nvmlInit. Raises pynvml.NVMLError where NVML does not know it."""
    import pynvml

    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
