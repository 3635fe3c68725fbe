import os
from pathlib import Path

import pytest

from cudaforge_profiling.devices import cpu_device, cuda_device, nvml_facts

CPUINFO = """\
processor\t: 0
model name\t: Example CPU
flags\t\t: fpu sse4_2 avx fma avx2 avx512f
cache_alignment\t: 64

processor\t: 1
model name\t: Example CPU
flags\t\t: fpu sse4_2 avx fma avx2 avx512f
"""

H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "major": 9,
    "minor": 0,
    "multi_processor_count": 132,
    "total_memory": 85_000_000_000,
    "L2_cache_size": 52_428_800,
    "shared_memory_per_multiprocessor": 233_472,
    "shared_memory_per_block_optin": 232_448,
    "regs_per_multiprocessor": 65_536,
    "max_threads_per_multi_processor": 2048,
    "clock_rate": 1_980_000,
    "memory_clock_rate": 2_619_000,
    "memory_bus_width": 5120,
}


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_cpu_describes_itself(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    write(tmp_path, "proc/meminfo", "MemTotal:       2048 kB\n")
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "32M")]
    ):
        for name, value in (("level", level), ("type", kind), ("size", size)):
            write(tmp_path, f"sys/devices/system/cpu/cpu0/cache/index{index}/{name}", value + "\n")
    device = cpu_device(tmp_path)
    assert (device.kind, device.name, device.arch) == ("cpu", "Example CPU", "avx512f avx2 avx fma sse4_2")
    assert device.units == len(os.sched_getaffinity(0))
    assert device.memory_bytes == 2048 * 1024
    assert device.cache_bytes == 32 << 20
    assert device.details == {"logical_cpus": 2, "l1d_bytes": 48 << 10, "l3_bytes": 32 << 20, "cache_line_bytes": 64}


def test_a_containers_quota_limits_the_cores(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000\n")
    device = cpu_device(tmp_path)
    assert device.units == 1
    assert device.details["cpu_quota"] == 0.5


def test_a_machine_that_tells_nothing_is_still_a_device(tmp_path: Path) -> None:
    device = cpu_device(tmp_path)
    assert device.units >= 1
    assert device.arch


def test_this_machine_reads_the_same_twice() -> None:
    assert cpu_device() == cpu_device()


def test_a_gpu_is_described_by_its_own_properties() -> None:
    device = cuda_device(H100, {"driver": "580.159", "driver_cuda": "13.0"}, index=1)
    assert (device.kind, device.arch, device.index, device.units) == ("cuda", "sm_90a", 1, 132)
    assert device.memory_bytes == 85_000_000_000
    assert device.cache_bytes == 52_428_800
    assert device.details["shared_memory_per_block_optin_bytes"] == 232_448
    assert device.details["sm_clock_mhz"] == 1980
    assert device.details["memory_peak_gb_per_s"] == 3352
    assert device.details["driver"] == "580.159"


@pytest.mark.parametrize(
    ("major", "minor", "arch"), [(7, 5, "sm_75"), (8, 9, "sm_89"), (10, 0, "sm_100a"), (12, 0, "sm_120a")]
)
def test_the_architecture_has_its_own_features_from_hopper_on(major: int, minor: int, arch: str) -> None:
    assert cuda_device({"name": "x", "major": major, "minor": minor}).arch == arch


def test_nvml_is_optional() -> None:
    assert nvml_facts("00000000-0000-0000-0000-000000000000").get("memory_bus_bits") is None
