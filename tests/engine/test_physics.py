"""Times that cannot be."""

from __future__ import annotations

from cudaforge.engine.physics import impossible
from cudaforge.evaluation import Samples, WorkloadBaseline
from cudaforge_profiling.types import Ceilings, Device

GPU = Device(
    kind="cuda", name="g", arch="sm_90a", cache_bytes=50 << 20, ceilings=Ceilings(copy_bytes_per_s=3e12, flops_per_s={})
)


def baseline(eager_us: float, live: int, out: int) -> WorkloadBaseline:
    eager = Samples(median_us=eager_us, low_us=eager_us, high_us=eager_us, samples_us=(eager_us,), clock="")
    return WorkloadBaseline(workload="w", eager=eager, live_bytes=live, output_bytes=out)


def test_faster_than_the_bytes_can_move_is_impossible() -> None:
    base = baseline(50.0, 64 << 20, 64 << 20)
    assert impossible(base, GPU, 20, 48.0) == ""
    assert "can move" in impossible(base, GPU, 20, 20.0)


def test_what_the_cache_can_hold_need_not_move() -> None:
    assert impossible(baseline(5.0, 64 << 10, 64 << 10), GPU, 400, 0.5) == ""


def test_where_eager_is_as_fast_the_output_is_a_view() -> None:
    assert impossible(baseline(2.0, 64 << 20, 64 << 20), GPU, 20, 2.0) == ""


def test_nothing_is_known_without_a_ceiling() -> None:
    unknown = GPU.model_copy(update={"ceilings": Ceilings()})
    assert impossible(baseline(50.0, 64 << 20, 64 << 20), unknown, 20, 0.01) == ""
