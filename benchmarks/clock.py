"""How far the clock can be believed: A/A by duration, and the gate against events, on one device.

    python benchmarks/clock.py --device cuda:0 --out benchmarks/results/NAME

The same PyTorch function is timed in two processes side by side, as a verification does it (three fresh pairs, random
order, every second group mirrored, fresh inputs for every call). The median log-ratio with its bootstrap interval is
what a tie looks like. Beside it, the gate's time of a call and the same processes' own CUDA events around the batch.
"""

from __future__ import annotations

import argparse
import itertools
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
from cudaforge.engine.hosts import Twin  # noqa: E402
from cudaforge.engine.session import Session, alone  # noqa: E402
from cudaforge.engine.supervisor import VERIFY_GROUPS, Supervisor  # noqa: E402
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


def measure(supervisor: Supervisor, source: str, n: int, groups: int, processes: int) -> dict[str, Any]:
    """One row: durations, events, and the A/A ratio of two processes, so many fresh pairs of them."""
    task = Task.parse(source.format(n=n), name="clock")
    workload = task.meta.workloads[0]
    eager_us: list[list[float]] = []
    control_us: list[list[float]] = []
    event_us: list[float] = []
    calls = 0
    for _ in range(processes):
        reference = supervisor._reference(task, workload)
        before = alone(reference)
        reference.renew()
        twin = Twin(reference)
        try:
            reference.make_trials([1, 2], ["natural"] * 2, perturb=False)
            session = Session(
                reference, {"eager": (reference.timed, "eager"), "control": (twin, "eager")}, before=before
            )
            session.interleave(groups, 20.0)
            eager_us.append(session.eager.samples_us)
            control_us.append(session.benches["control"].samples_us)
            event_us += session.eager.event_us
            calls = session.eager.calls
        finally:
            twin.close()
            supervisor._forget(task, workload)
    ratio = timing.pooled_ratio(eager_us, control_us)
    pairs = [timing.paired_ratio(*pair).value for pair in zip(eager_us, control_us, strict=True)]
    return {
        "function": "clamp_min" if source is ELEMENTWISE else "matmul",
        "n": n,
        "calls": calls,
        "us": statistics.median(itertools.chain(*eager_us)),
        "events_us": statistics.median(event_us) if event_us else None,
        "aa_percent": [100 * math.log(x) for x in (ratio.value, ratio.low, ratio.high)],
        "pairs_percent": [100 * math.log(x) for x in pairs],
        "samples_us": eager_us,
        "control_us": control_us,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| function | n | calls a batch | us a call | own events, us | gate / events - 1 | A/A, % [interval] "
        "| each pair of processes, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        value, low, high = row["aa_percent"]
        pairs = ", ".join(f"{pair:+.2f}" for pair in row["pairs_percent"])
        events = f"{row['events_us']:.3f}" if row["events_us"] else "-"
        off = f"{100 * (row['us'] / row['events_us'] - 1):+.2f} %" if row["events_us"] else "-"
        lines.append(
            f"| {row['function']} | {row['n']} | {row['calls']} | {row['us']:.3f} | {events} | {off} "
            f"| {value:+.3f} [{low:+.3f}, {high:+.3f}] | {pairs} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and writes clock.json and clock.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--groups", type=int, default=VERIFY_GROUPS)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = machine.resolve(options.device)
    with tempfile.TemporaryDirectory() as home:
        supervisor = Supervisor(Path(home), device)
        rows = []
        try:
            for source, n in CUDA if device != "cpu" else CPU:
                rows.append(measure(supervisor, source, n, options.groups, options.processes))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
            versions = machine.versions(supervisor.device)
            described = supervisor.device
        finally:
            supervisor.close()
    found = {"device": described.model_dump(), "versions": versions, "host": platform.platform(), "rows": rows}
    (options.out / "clock.json").write_text(json.dumps(found, indent=1) + "\n")
    head = f"{described.name}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    asked = f"--device {options.device} --groups {options.groups} --processes {options.processes}"
    command = f"python benchmarks/clock.py {asked} --out DIR"
    (options.out / "clock.md").write_text(f"{head}\n\n`{command}`\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
