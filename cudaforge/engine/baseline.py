"""The baselines of a workload: eager and torch.compile as they are, and the least time that the device allows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cudaforge.engine import machine
from cudaforge.engine.bench import Bench
from cudaforge.engine.hosts import ReferenceHost, TaskBroken, nbytes
from cudaforge.engine.session import Session
from cudaforge.evaluation import WorkloadBaseline
from cudaforge_profiling.roofline import floor
from cudaforge_profiling.types import Device

COMPILE_MODES = {"cpu": ("default",), "cuda": ("default", "max-autotune-no-cudagraphs")}
BATCHES = 20


class Stages:
    """Seconds per stage. What a stage within another takes is not the other's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._within = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started, beside = time.monotonic(), self._within
        self._within = 0.0
        try:
            with machine.nvtx_range(name):
                yield
        finally:
            took = time.monotonic() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + took - self._within, 4)
            self._within = beside + took


def measure(reference: ReferenceHost, device: Device, stages: Stages, *, with_compile: bool = True) -> WorkloadBaseline:
    """Times eager and torch.compile on the workload of `reference`, and works out its floor. Needs the device."""
    with stages("eager"):
        eager = _timed(reference, "eager")
    compiled: dict[str, Bench] = {}
    error = ""
    for mode in COMPILE_MODES[device.kind] if with_compile else ():
        with stages("torch.compile"):
            try:
                compiled[mode] = _timed(reference, f"compile:{mode}")
            except TaskBroken as broken:
                error = f"{mode}: {broken}"[:500]
    best = min(compiled, key=lambda mode: compiled[mode].samples.median_us) if compiled else ""
    dtype = next((d for d, _ in reference.input_specs if d.startswith(("float", "bfloat"))), "float32")
    if dtype == "float32" and reference.task.meta.allow_tf32 and device.kind == "cuda":
        dtype = "tf32"
    floor_us, bound = floor(reference.nbytes, reference.flops, dtype, device.ceilings)
    return WorkloadBaseline(
        workload=reference.workload.name,
        eager=eager.samples,
        compile=compiled[best].samples if best else None,
        compile_mode=best,
        compile_times_us={mode: bench.samples.median_us for mode, bench in compiled.items()},
        compile_error=error,
        inputs=tuple(_show(spec) for spec in reference.input_specs),
        outputs=tuple(_show(spec) for spec in reference.output_specs),
        parameters=tuple(f"{p.name}: {_show(p.spec)}" for p in reference.parameters),
        bytes=reference.nbytes,
        output_bytes=nbytes(reference.output_specs),
        flops=reference.flops,
        floor_us=floor_us,
        bound=bound,
    )


def _timed(reference: ReferenceHost, what: str) -> Bench:
    """Batches of one baseline by itself."""
    host = reference.timed if what == "eager" else reference.compiled()
    try:
        session = Session(reference, {what: (host, what)})
        bench = session.benches[what]
        while len(bench.samples_us) < (4 if bench.spent_s > 2.0 else BATCHES):
            session.group([what])
        return bench
    finally:
        reference.keep_eager_alone()


def _show(spec: tuple[str, tuple[int, ...]]) -> str:
    return f"{spec[0]}{list(spec[1])}"
