"""Which hardware counters are asked for, what they mean, and what stands in for one that a chip lacks.

Two sets. `core` is what a revision can be based on and costs few replay passes (7 on an H100, as NVIDIA's own
profiler host library plans them: the `throughput` metrics of SM, L1 and L2 alone would cost 9). `paper` is exactly
the 24 metrics of the CudaForge paper, two of which no chip since Volta has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cudaforge_profiling.types import Frozen


class MetricSpec(Frozen):
    """A counter, what it says, and what to ask for where the chip does not have it."""

    name: str
    unit: str
    meaning: str
    substitutes: tuple[str, ...] = ()
    """Tried in order, each with the same unit; described by a spec of its own."""
    gone: bool = False
    """No chip since Volta has it: substituted even where the chip's list could not be read."""


_ACTIVE = "avg.pct_of_peak_sustained_active"
_ELAPSED = "avg.pct_of_peak_sustained_elapsed"

STALL_MEANINGS: dict[str, str] = {
    "barrier": "waiting for other warps of the block at a barrier",
    "branch_resolving": "waiting for a branch target",
    "dispatch_stall": "ready, but held back by the dispatcher",
    "drain": "waiting after EXIT for stores to finish",
    "gmma": "waiting for warpgroup matrix instructions (wgmma)",
    "imc_miss": "waiting for the immediate constant cache",
    "lg_throttle": "the queue for local and global memory instructions is full: too many, too narrow accesses",
    "long_scoreboard": "waiting for global or local memory or texture (L1TEX), mbarrier polling included",
    "math_pipe_throttle": "the arithmetic pipe is busy",
    "membar": "waiting on a memory fence",
    "mio_throttle": "the queue for shared memory and special functions is full",
    "misc": "other hardware reasons",
    "no_instruction": "waiting for instruction fetch: small launches, jumps, large code",
    "no_instructions": "waiting for instruction fetch: small launches, jumps, large code",
    "not_selected": "ready, another warp was chosen: enough warps are there",
    "selected": "issued an instruction: not a stall",
    "short_scoreboard": "waiting for shared memory or special functions (MUFU)",
    "sleeping": "in nanosleep or blocked",
    "tex_throttle": "the texture queue is full",
    "wait": "fixed latency of the instruction before: too little parallelism in the instruction stream",
    "warpgroup_arrive": "waiting for warpgroup matrix instructions (wgmma)",
}
"""Reason, as the metric names spell it, to plain words."""

_CORE_STALLS = (
    "long_scoreboard",
    "short_scoreboard",
    "barrier",
    "wait",
    "math_pipe_throttle",
    "lg_throttle",
    "mio_throttle",
    "gmma",
    "membar",
    "sleeping",
    "not_selected",
    "branch_resolving",
)

_CORE = (
    MetricSpec(name="gpu__time_duration.sum", unit="ns", meaning="time of the launch, caches as set by the profiler"),
    MetricSpec(name="launch__grid_size", unit="block", meaning="blocks launched"),
    MetricSpec(name="launch__block_size", unit="thread", meaning="threads per block"),
    MetricSpec(name="launch__registers_per_thread", unit="register/thread", meaning="registers per thread"),
    MetricSpec(name="launch__shared_mem_per_block_static", unit="byte/block", meaning="static shared memory per block"),
    MetricSpec(
        name="launch__shared_mem_per_block_dynamic", unit="byte/block", meaning="dynamic shared memory per block"
    ),
    MetricSpec(
        name="launch__occupancy_limit_blocks", unit="block", meaning="blocks per SM that the hardware's slots allow"
    ),
    MetricSpec(
        name="launch__occupancy_limit_registers", unit="block", meaning="blocks per SM that the registers allow"
    ),
    MetricSpec(
        name="launch__occupancy_limit_shared_mem", unit="block", meaning="blocks per SM that the shared memory allows"
    ),
    MetricSpec(name="launch__occupancy_limit_warps", unit="block", meaning="blocks per SM that the warp slots allow"),
    MetricSpec(
        name="launch__waves_per_multiprocessor",
        unit="",
        meaning="how often the grid fills the GPU; a fraction just above a whole number is a tail",
    ),
    MetricSpec(
        name="dram__bytes_read.sum",
        unit="byte",
        meaning="bytes read from device memory",
        substitutes=("dram__bytes_op_read.sum",),
    ),
    MetricSpec(
        name="dram__bytes_write.sum",
        unit="byte",
        meaning="bytes written to device memory",
        substitutes=("dram__bytes_op_write.sum",),
    ),
    MetricSpec(
        name="dram__bytes_read.sum.per_second",
        unit="byte/s",
        meaning="read bandwidth of device memory",
        substitutes=("dram__bytes_op_read.sum.per_second",),
    ),
    MetricSpec(
        name="dram__bytes_write.sum.per_second",
        unit="byte/s",
        meaning="write bandwidth of device memory",
        substitutes=("dram__bytes_op_write.sum.per_second",),
    ),
    MetricSpec(name=f"dram__throughput.{_ELAPSED}", unit="%", meaning="device memory, share of its peak"),
    MetricSpec(name="lts__t_bytes.sum", unit="byte", meaning="bytes through L2"),
    MetricSpec(name=f"lts__throughput.{_ELAPSED}", unit="%", meaning="L2, share of its peak"),
    MetricSpec(name="lts__t_sector_hit_rate.pct", unit="%", meaning="hits in L2"),
    MetricSpec(name=f"l1tex__throughput.{_ACTIVE}", unit="%", meaning="L1 and shared memory, share of their peak"),
    MetricSpec(name="l1tex__t_sector_hit_rate.pct", unit="%", meaning="hits in L1"),
    MetricSpec(
        name="l1tex__t_bytes_pipe_lsu_mem_local_op_ld.sum",
        unit="byte",
        meaning="local memory read: register spills and indexed arrays",
    ),
    MetricSpec(
        name="l1tex__t_bytes_pipe_lsu_mem_local_op_st.sum",
        unit="byte",
        meaning="local memory written: register spills and indexed arrays",
    ),
    MetricSpec(name="sm__inst_executed.sum", unit="inst", meaning="warp instructions executed"),
    MetricSpec(
        name=f"smsp__issue_active.{_ACTIVE}", unit="%", meaning="cycles in which an instruction was issued: SM use"
    ),
    MetricSpec(name=f"sm__warps_active.{_ACTIVE}", unit="%", meaning="achieved occupancy"),
    MetricSpec(
        name=f"sm__inst_executed_pipe_fma.{_ACTIVE}", unit="%", meaning="FMA pipe (fp32 arithmetic), share of its peak"
    ),
    MetricSpec(
        name=f"sm__pipe_tensor_cycles_active.{_ACTIVE}",
        unit="%",
        meaning="tensor pipe, share of its peak",
        substitutes=(f"sm__inst_executed_pipe_tensor.{_ACTIVE}",),
    ),
    MetricSpec(
        name="smsp__average_warps_active_per_issue_active.ratio",
        unit="warp",
        meaning="warps in flight per issued instruction: what the stall ratios add up to",
    ),
    *(
        MetricSpec(
            name=f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio",
            unit="warp",
            meaning=f"warps {STALL_MEANINGS[reason]}, per issued instruction",
        )
        for reason in _CORE_STALLS
    ),
)


def _stalled(reason: str) -> str:
    return f"smsp__warp_issue_stalled_{reason}_per_warp_active.pct"


_PAPER = (
    MetricSpec(name="sm__cycles_active.avg", unit="cycle", meaning="cycles with work on an SM"),
    MetricSpec(name=f"sm__warps_active.{_ACTIVE}", unit="%", meaning="achieved occupancy"),
    MetricSpec(
        name="launch__occupancy_limit_blocks", unit="block", meaning="blocks per SM that the hardware's slots allow"
    ),
    MetricSpec(
        name="launch__occupancy_limit_registers", unit="block", meaning="blocks per SM that the registers allow"
    ),
    MetricSpec(
        name="launch__occupancy_limit_shared_mem", unit="block", meaning="blocks per SM that the shared memory allows"
    ),
    MetricSpec(name="launch__registers_per_thread", unit="register/thread", meaning="registers per thread"),
    MetricSpec(name="sm__inst_executed.sum", unit="inst", meaning="warp instructions executed"),
    MetricSpec(
        name=f"sm__inst_executed_pipe_fp32.{_ACTIVE}",
        unit="%",
        meaning="fp32 arithmetic pipe, share of its peak",
        substitutes=(f"sm__inst_executed_pipe_fma.{_ACTIVE}",),
        gone=True,
    ),
    MetricSpec(
        name=f"sm__inst_executed_pipe_tensor.{_ACTIVE}",
        unit="%",
        meaning="tensor pipe, share of its peak instruction rate",
        substitutes=(f"sm__pipe_tensor_cycles_active.{_ACTIVE}",),
    ),
    MetricSpec(
        name="dram__bytes_read.sum",
        unit="byte",
        meaning="bytes read from device memory",
        substitutes=("dram__bytes_op_read.sum",),
    ),
    MetricSpec(
        name="dram__bytes_write.sum",
        unit="byte",
        meaning="bytes written to device memory",
        substitutes=("dram__bytes_op_write.sum",),
    ),
    MetricSpec(name=f"dram__throughput.{_ELAPSED}", unit="%", meaning="device memory, share of its peak"),
    MetricSpec(name="dram__bytes.sum.per_second", unit="byte/s", meaning="bandwidth of device memory"),
    MetricSpec(
        name=f"gpu__dram_throughput.{_ELAPSED}", unit="%", meaning="device memory and its path, share of their peak"
    ),
    MetricSpec(name="l1tex__t_sector_hit_rate.pct", unit="%", meaning="hits in L1"),
    MetricSpec(name=f"l1tex__throughput.{_ACTIVE}", unit="%", meaning="L1 and shared memory, share of their peak"),
    MetricSpec(name="lts__t_sector_hit_rate.pct", unit="%", meaning="hits in L2"),
    MetricSpec(
        name="lts__throughput.avg.pct_of_peak_sustained_active", unit="%", meaning="L2, share of its peak while active"
    ),
    MetricSpec(
        name=_stalled("memory_dependency"),
        unit="%",
        meaning="warps waiting for memory",
        # What it meant on older chips is split today: long_scoreboard, which the set has already, and lg_throttle.
        substitutes=(_stalled("lg_throttle"),),
        gone=True,
    ),
    *(
        MetricSpec(name=_stalled(reason), unit="%", meaning=f"warps {STALL_MEANINGS[reason]}")
        for reason in ("short_scoreboard", "long_scoreboard", "barrier", "branch_resolving")
    ),
    MetricSpec(
        name="smsp__sass_average_branch_targets_threads_uniform.pct",
        unit="%",
        meaning="branches that all threads of a warp took the same way",
    ),
)

_SUBSTITUTES = (
    MetricSpec(name="dram__bytes_op_read.sum", unit="byte", meaning="bytes read from device memory"),
    MetricSpec(name="dram__bytes_op_write.sum", unit="byte", meaning="bytes written to device memory"),
    MetricSpec(name="dram__bytes_op_read.sum.per_second", unit="byte/s", meaning="read bandwidth of device memory"),
    MetricSpec(name="dram__bytes_op_write.sum.per_second", unit="byte/s", meaning="write bandwidth of device memory"),
    MetricSpec(name=_stalled("lg_throttle"), unit="%", meaning=f"warps for which {STALL_MEANINGS['lg_throttle']}"),
)

METRIC_SETS: dict[str, tuple[MetricSpec, ...]] = {"core": _CORE, "paper": _PAPER}

SPECS: dict[str, MetricSpec] = {spec.name: spec for spec in (*_SUBSTITUTES, *_PAPER, *_CORE)}
"""Every metric that is known by name, substitutes included."""

# Not in `ncu --query-metrics`, which lists counters of the chip: ncu makes these itself, on every chip.
_MADE_BY_NCU = ("launch__", "group:", "smsp__pcsamp_", "device__attribute_", "profiler__")
_NAME = re.compile(r"^[\"']?([A-Za-z][A-Za-z0-9]*__[A-Za-z0-9_]+(?:\.[A-Za-z0-9_.]+)?)[\"']?(?=[\s,]|$)")


def base_name(metric: str) -> str:
    """The name as the chip's list has it: `dram__bytes.sum.per_second` is `dram__bytes`."""
    return metric.split(".", 1)[0]


def parse_query_metrics(text: str) -> set[str]:
    """Base names in the output of `ncu --query-metrics`, whether as a table, a plain list or CSV, suffixed or not.

    Empty where the text lists none, an error message for instance.
    """
    found = (_NAME.match(line.strip()) for line in text.splitlines())
    return {base_name(match.group(1)) for match in found if match}


def resolve(metric_set: str, available: Iterable[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names to ask ncu for, and notes on what was substituted or dropped.

    One unknown name makes ncu return nothing at all, so nothing unknown is passed on.

    Args:
        metric_set: a key of METRIC_SETS.
        available: base names that the chip has (`parse_query_metrics`); None or empty where they could not be read.

    Raises:
        ValueError: no such metric set.
    """
    specs = METRIC_SETS.get(metric_set)
    if specs is None:
        raise ValueError(f"no metric set {metric_set!r}: there are {', '.join(METRIC_SETS)}")
    bases = {base_name(name) for name in available or ()}

    def exists(name: str) -> bool:
        if name.startswith(_MADE_BY_NCU):
            return True
        return base_name(name) in bases if bases else not SPECS[name].gone

    names: list[str] = []
    notes: list[str] = [] if bases else ["The chip's list of metrics could not be read: names are unchecked."]
    wanted = {spec.name for spec in specs}
    for spec in specs:
        if exists(spec.name):
            names.append(spec.name)
            continue
        stand_in = next((name for name in spec.substitutes if exists(name)), None)
        if stand_in is None:
            notes.append(f"{spec.name} dropped: this chip does not have it.")
        elif stand_in in names or stand_in in wanted:
            notes.append(f"{spec.name} dropped: this chip does not have it, and {stand_in} is in the set already.")
        else:
            names.append(stand_in)
            notes.append(
                f"{spec.name} does not exist on this chip; {stand_in} stands in for it ({SPECS[stand_in].meaning})."
            )
    return tuple(names), tuple(notes)
