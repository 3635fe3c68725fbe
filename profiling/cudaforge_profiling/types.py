"""The types that profiles and devices are made of: pure data, no torch, no process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Immutable, and strict about field names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
    )


class Ceilings(Frozen):
    """What this device reached in our own micro-benchmarks, not the data sheet's claims."""

    copy_bytes_per_s: float | None = None
    """Large device-to-device (or memory-to-memory) copy, bytes read plus bytes written."""
    flops_per_s: dict[str, float] = {}
    """Best matrix product by dtype name: float64, float32, tf32, bfloat16, float16."""
    measured_at: str = ""


class Device(Frozen):
    """One device that runs kernels, as read from itself."""

    kind: Literal["cuda", "cpu"]
    name: str
    arch: str
    """`sm_90a`, or the CPU's instruction sets that matter (`avx512f avx2 fma`)."""
    index: int = 0
    units: int = 0
    """Streaming multiprocessors, or the cores that this process may use."""
    memory_bytes: int = 0
    cache_bytes: int = 0
    """L2 on a GPU, last level on a CPU."""
    details: dict[str, str | int | float] = {}
    """Further facts for prompts and provenance: shared memory per SM and per block, registers, clocks, driver."""
    ceilings: Ceilings = Ceilings()


class Metric(Frozen):
    """One hardware counter of one launch."""

    name: str
    value: float | int | str
    unit: str = ""


class Launch(Frozen):
    """One kernel launch as ncu saw it."""

    index: int
    name: str
    """Demangled, without arguments where possible."""
    mangled: str = ""
    own: bool = True
    """Defined by the candidate's own library (as opposed to PyTorch, cuBLAS, ...)."""
    grid: tuple[int, int, int] = (1, 1, 1)
    block: tuple[int, int, int] = (1, 1, 1)
    duration_us: float | None = None
    metrics: dict[str, Metric] = {}
    stalls: dict[str, float] = {}
    """What the warps did, 0..1 by reason as ncu names it (`long_scoreboard`, ...; `selected` is issuing)."""


class HotLine(Frozen):
    """A source line with its share of the stall samples, 0..1."""

    file: str
    line: int
    share: float
    text: str = ""
    stalls: dict[str, float] = {}


class Roofline(Frozen):
    """Where a kernel stands against the device's measured ceilings."""

    bytes: int
    """Least bytes that the task must move: each input and parameter read once, each output written once."""
    flops: int | None = None
    """Operations of the reference, where they can be counted."""
    floor_us: float | None = None
    """The larger of bytes / copy ceiling and operations / arithmetic ceiling."""
    bound: Literal["memory", "compute", "unknown"] = "unknown"
    achieved_bytes_per_s: float | None = None
    achieved_flops_per_s: float | None = None
    share_of_floor: float | None = None
    """floor_us / measured time: the share of the speed of light that was reached. Above 1 where caches kept what the
    floor takes to come from memory."""


class Remark(Frozen):
    """What the compiler said about a line: vectorised, or why not; registers and spills of a kernel."""

    file: str
    line: int
    kind: Literal["vectorized", "missed", "resource", "note"]
    message: str


class Profile(Frozen):
    """What was learnt about one kernel on one device. `unavailable` says why parts are missing."""

    kernel: str
    device: Device
    metric_set: str
    tool: str
    """`ncu 2025.3.1`, or `cpu counters` where no profiler was used."""
    launches: tuple[Launch, ...] = ()
    roofline: Roofline | None = None
    hot_lines: tuple[HotLine, ...] = ()
    remarks: tuple[Remark, ...] = ()
    notes: tuple[str, ...] = ()
    """Substituted or dropped metrics, and other things a reader must know."""
    unavailable: str = ""
    """Why there are no hardware counters; empty where there are."""
    display: ClassVar[Callable[[Profile], str | None] | None] = None
    """How a notebook shows one, as HTML; given by whoever has a display for it. This package draws nothing."""
    report: bytes | None = Field(None, repr=False)
    """The .ncu-rep file itself, kept as an artefact."""
    seconds: float = 0.0

    def _repr_html_(self) -> str | None:
        drawn_by = type(self).display
        return drawn_by(self) if drawn_by else None

    def __repr__(self) -> str:
        counted = f"{len(self.launches)} launches" if self.launches else "no hardware counters"
        return f"<Profile of {self.kernel} by {self.tool}: {counted}, metric set {self.metric_set}>"

    def __str__(self) -> str:
        return repr(self)
