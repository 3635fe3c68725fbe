"""How far the clock can be believed: A/A by duration, and the gate against events, on one device.

    python benchmarks/clock.py --device cuda:0 --out benchmarks/results/NAME

The same PyTorch function is timed in two processes side by side, as a verification does it (random order, every second
group mirrored, fresh inputs for every call). The median log-ratio of the two with its bootstrap interval is what a
tie looks like. Beside it, the gate's time of a call and the same process's own CUDA events around the same batch.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "profiling")]

from cudaforge.engine import machine, timing  # noqa: E402
from cudaforge.engine.session import Session  # noqa: E402
from cudaforge.engine.supervisor import Supervisor  # noqa: E402
from cudaforge.task import Task  # noqa: E402

ELEMENTWISE = """
import torch
from torch import nn

class Model(nn.Module):
    def forward(self, x):
        return torch.clamp_min(x, 0.5)

def get_inputs():
    return [torch.rand({n})]

def get_init_inputs():
    return []
"""
PRODUCT = """
import torch
from torch import nn

class Model(nn.Module):
    def forward(self, x, y):
        return x @ y

def get_inputs():
    return [torch.rand({n}, {n}), torch.rand({n}, {n})]

def get_init_inputs():
    return []
"""
CUDA = [
    *((ELEMENTWISE, n) for n in (1 << 14, 1 << 18, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 26, 1 << 27)),
    *((PRODUCT, n) for n in (1024, 2048, 4096, 6144)),
]
CPU = [*((ELEMENTWISE, n) for n in (1 << 14, 1 << 18, 1 << 20, 1 << 22)), *((PRODUCT, n) for n in (256, 512, 1024))]


def measure(supervisor: Supervisor, source: str, n: int, groups: int) -> dict[str, Any]:
    """One row: durations, events, and the A/A ratio of two processes."""
    task = Task.parse(source.format(n=n), name="clock")
    reference = supervisor._reference(task, task.meta.workloads[0])
    twin = supervisor._twin(reference)
    try:
        reference.make_trials([1, 2], ["natural"] * 2, perturb=False)
        session = Session(reference, {"eager": (reference, "eager"), "control": (twin, "eager")})
        session.interleave(groups, 20.0)
        eager, control = session.eager, session.benches["control"]
        ratio = timing.paired_ratio(eager.samples_us, control.samples_us)
        blocks = sorted(math.log(a / b) for a, b in zip(eager.samples_us, control.samples_us, strict=True))
        events = statistics.median(eager.event_us) if eager.event_us else None
        return {
            "function": "clamp_min" if source is ELEMENTWISE else "matmul",
            "n": n,
            "calls": eager.calls,
            "batches": len(eager.samples_us),
            "us": statistics.median(eager.samples_us),
            "events_us": events,
            "aa_percent": [100 * math.log(x) for x in (ratio.value, ratio.low, ratio.high)],
            "batches_percent_p10_p90": [100 * blocks[len(blocks) // 10], 100 * blocks[-1 - len(blocks) // 10]],
            "samples_us": eager.samples_us,
            "control_us": control.samples_us,
        }
    finally:
        twin.close()
        supervisor._forget(task, task.meta.workloads[0])


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| function | n | calls a batch | us a call | own events, us | gate / events - 1 | A/A, % [95 % interval] "
        "| batches p10 .. p90, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        value, low, high = row["aa_percent"]
        first, last = row["batches_percent_p10_p90"]
        events = f"{row['events_us']:.3f}" if row["events_us"] else "-"
        off = f"{100 * (row['us'] / row['events_us'] - 1):+.2f} %" if row["events_us"] else "-"
        lines.append(
            f"| {row['function']} | {row['n']} | {row['calls']} | {row['us']:.3f} | {events} | {off} "
            f"| {value:+.3f} [{low:+.3f}, {high:+.3f}] | {first:+.2f} .. {last:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and writes clock.json and clock.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = machine.resolve(options.device)
    with tempfile.TemporaryDirectory() as home:
        supervisor = Supervisor(Path(home), device)
        rows = []
        try:
            for source, n in CUDA if device != "cpu" else CPU:
                rows.append(measure(supervisor, source, n, options.groups))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
            versions = machine.versions(supervisor.device)
            described = supervisor.device
        finally:
            supervisor.close()
    found = {"device": described.model_dump(), "versions": versions, "host": platform.platform(), "rows": rows}
    (options.out / "clock.json").write_text(json.dumps(found, indent=1) + "\n")
    head = f"{described.name}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    command = f"python benchmarks/clock.py --device {options.device} --groups {options.groups} --out DIR"
    (options.out / "clock.md").write_text(f"{head}\n\n`{command}`\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
