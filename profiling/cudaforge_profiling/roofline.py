"""The floor: the time under which this device cannot do this task, from what it reached itself."""

from __future__ import annotations

from typing import Literal

from cudaforge_profiling.types import Ceilings, Roofline

Bound = Literal["memory", "compute", "unknown"]

# fp32 accuracy can be had from tensor cores by splitting each operand in two: three products of tf32 or fp16.
_SPLIT_PRODUCTS = 3


def peak_flops(dtype: str, ceilings: Ceilings) -> float | None:
    """The best rate known for arithmetic of `dtype`'s accuracy, in operations per second; None where unknown.

    For float32 that may be a split scheme on tensor cores: a floor that such a kernel beats would be none.
    `dtype` is a key of Ceilings.flops_per_s, with or without `torch.`.
    """
    rates = ceilings.flops_per_s
    name = dtype.removeprefix("torch.")
    known = [rates[name]] if name in rates else []
    if name == "float32":
        known += [rates[half] / _SPLIT_PRODUCTS for half in ("tf32", "float16") if half in rates]
    return max((rate for rate in known if rate > 0), default=None)


def floor(bytes: int, flops: int | None, dtype: str, ceilings: Ceilings) -> tuple[float | None, Bound]:
    """Least time in microseconds, and what sets it.

    Args:
        bytes: least bytes to move: inputs and parameters read once, outputs written once.
        flops: operations (a multiply-add is two), None where they cannot be counted.
        dtype: what they are done in; `tf32` where the task allows it.

    Returns:
        (None, "unknown") where no ceiling was measured.
    """
    bandwidth = ceilings.copy_bytes_per_s
    memory_us = bytes / bandwidth * 1e6 if bandwidth else None
    rate = peak_flops(dtype, ceilings)
    compute_us = flops / rate * 1e6 if flops and rate else None
    if memory_us is None and compute_us is None:
        return None, "unknown"
    if compute_us is None or (memory_us is not None and memory_us >= compute_us):
        return memory_us, "memory"
    return compute_us, "compute"


def roofline(bytes: int, flops: int | None, dtype: str, ceilings: Ceilings, time_us: float | None = None) -> Roofline:
    """The floor, and where a kernel that takes `time_us` stands against it.

    `share_of_floor` above 1 says that caches kept what the floor takes to come from memory.
    """
    floor_us, bound = floor(bytes, flops, dtype, ceilings)
    seconds = time_us / 1e6 if time_us else None
    return Roofline(
        bytes=bytes,
        flops=flops,
        floor_us=floor_us,
        bound=bound,
        achieved_bytes_per_s=bytes / seconds if seconds else None,
        achieved_flops_per_s=flops / seconds if seconds and flops else None,
        share_of_floor=floor_us / time_us if floor_us is not None and time_us else None,
    )
