"""What this device reaches at best: copy bandwidth and matrix products, measured once and cached.

`python -m cudaforge.engine.ceilings --device cuda:0` prints a Ceilings object as JSON; a process of its own, so
that its memory is gone afterwards.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import torch

from cudaforge_profiling.types import Ceilings

FEWEST, MOST, ENOUGH_S = 3, 11, 0.3
"""How often something is measured, and seconds after which the fewest are enough."""


def measure(device: str) -> Ceilings:
    """Best of several copies of memory far larger than any cache, and of large square matrix products."""
    gpu = device != "cpu"
    elements = (2 << 30) // 4 if gpu else (256 << 20) // 4
    # Random values: matrix products and copies of zeros can run faster than those of real data.
    source = torch.rand(elements, device=device)
    copy_s = _best(partial(torch.empty_like(source).copy_, source), device)
    copy = 2 * source.numel() * source.element_size() / copy_s
    del source
    flops: dict[str, float] = {}
    names = ("float32", "tf32", "bfloat16", "float16", "float64") if gpu else ("float32", "float64")
    size = 8192 if gpu else 1536
    for name in names:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        a = torch.rand(size, size, device=device).to(dtype)
        b = torch.rand(size, size, device=device).to(dtype)
        flops[name] = 2.0 * size**3 / _best(partial(torch.matmul, a, b), device)
    return Ceilings(
        copy_bytes_per_s=copy, flops_per_s=flops, measured_at=datetime.now(UTC).isoformat(timespec="seconds")
    )


def _best(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: the best of several after a warm-up, of fewer where they are slow, as on few cores."""
    for _ in range(2):
        _seconds(call, device)
    times: list[float] = []
    while len(times) < (MOST if sum(times) < ENOUGH_S else FEWEST):
        times.append(_seconds(call, device))
    return min(times)


def _seconds(call: Callable[[], object], device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def main() -> None:
    """Prints the ceilings of one device."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    print(measure(parser.parse_args().device).model_dump_json())


if __name__ == "__main__":
    main()
