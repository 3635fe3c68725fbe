"""Times that cannot be: less than what the bytes of a batch need at the rate that this device was measured at."""

from __future__ import annotations

from cudaforge.evaluation import WorkloadBaseline
from cudaforge_profiling.types import Device

HEADROOM = {"cuda": 1.2, "cpu": 3.0}
"""How much faster than the measured copy bytes may move. A CPU's caches are shared and larger than they say."""


def impossible(base: WorkloadBaseline, device: Device, calls: int, time_us: float) -> str:
    """Why a time per call cannot be, in words; empty where it can.

    A batch reads at least those bytes of the inputs that were shown to matter (admission.py), and writes its outputs,
    each of them its own. What the last-level cache can hold of all that is not asked to move.
    """
    rate = device.ceilings.copy_bytes_per_s
    if not rate:
        return ""
    moved = calls * (base.live_bytes + base.output_bytes) - 2 * device.cache_bytes
    least_us = moved / (rate * HEADROOM[device.kind]) / calls * 1e6
    # Where eager itself is faster, the output is a view or the caches are larger than they say.
    if time_us >= least_us or base.eager.median_us < least_us:
        return ""
    size, faster = base.live_bytes + base.output_bytes, HEADROOM[device.kind]
    return (
        f"{time_us:.4g} us a call is less than the {least_us:.4g} us in which {size} bytes of inputs and outputs can "
        f"move at {faster:g} times the measured copy rate."
    )
