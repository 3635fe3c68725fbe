"""Many evaluations in a row on one worker, one in five of them hostile: verdicts, and what is left behind.

The others are honest: right ones, which must pass, and mistakes, which must be found.

    python benchmarks/soak.py --device cpu --count 500 --out benchmarks/results/NAME

After every evaluation: processes below the worker, its file descriptors, shared memory and scratch folders on the
machine, memory of the worker, and on a GPU the memory in use. None of it may grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "profiling")]

from cudaforge.engine import machine  # noqa: E402
from cudaforge.engine.local import LocalEvaluator  # noqa: E402
from cudaforge.errors import EvaluatorError  # noqa: E402
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest  # noqa: E402
from cudaforge.selftest import cases  # noqa: E402

HONEST = {
    "cpu": ("honest_fused", "honest_printing", "honest_padded_output", "honest_suspicious_words"),
    "cuda": ("honest_fused", "prints", "strided_output", "tensor_map_copies"),
}
MISTAKES = {
    "cpu": ("affine_ignored", "second_output_wrong", "half_output", "read_past_the_end"),
    "cuda": ("half_output", "unwritten_tail", "launch_fails_unnoticed", "a_few_wrong_elements"),
}
HOSTILE = {
    "cpu": (
        *("fork_bomb", "output_flood", "harness_killed", "forged_replies", "forged_stdout", "memory_hog"),
        *("thread_after_return", "constructor_thread", "network_and_subprocess", "next_submission_poisoned"),
    ),
    "cuda": (
        *("sticky_error", "harness_killed", "forged_done_flag", "shadowed_modules", "side_stream_native"),
        *("network_and_subprocess", "next_submission_poisoned", "reference_changed", "expected_by_frames"),
    ),
}
OPTIONS = EvaluateOptions(trials=2, time_budget_s=0.002, run_timeout_s=20, compile_baseline=False)


def left_behind(worker: int, device: str) -> dict[str, float]:
    """What exists now."""
    found: dict[str, float] = {
        "processes": len(_below(worker)),
        "descriptors": len(list(Path(f"/proc/{worker}/fd").iterdir())),
        "shared memory": len(list(Path("/dev/shm").iterdir())),
        "scratch folders": len(list(Path(tempfile.gettempdir()).glob("cudaforge-*"))),
        "worker MiB": _resident(worker),
    }
    if device != "cpu":
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        found["GPU MiB"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used >> 20
    return found


def _below(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(device: str, count: int, home: Path, log: IO[str]) -> dict[str, Any]:
    """The evaluations; returns what was seen. Every row also goes to `log` at once."""
    half: cases.Device = "cpu" if device == "cpu" else "cuda"
    every = {case.name: case for case in cases.load(half)}
    right, wrong, hostile = ([every[n] for n in names[half]] for names in (HONEST, MISTAKES, HOSTILE))
    evaluator = LocalEvaluator(home, device)
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    try:
        for i in range(count):
            kind, chosen = ("hostile", hostile) if i % 5 == 4 else ("honest", right) if i % 2 else ("mistake", wrong)
            case = chosen[i // 5 % len(chosen)]
            before = time.monotonic()
            try:
                found = await evaluator.evaluate(
                    EvaluateRequest(key=f"soak-{i}", task=case.task, kernel=case.kernel, options=OPTIONS)
                )
                outcome, verdict = cases.judge(case, found, found.speedup), str(found.verdict)
            except EvaluatorError as error:
                outcome, verdict = cases.Outcome(status="infrastructure", why=error.message), "error"
            assert evaluator.lanes[0].worker.process is not None
            row = {
                "case": case.name,
                "kind": kind,
                "status": outcome.status,
                "verdict": verdict,
                "why": outcome.why,
            }
            row["seconds"] = round(time.monotonic() - before, 2)
            rows.append({**row, **left_behind(evaluator.lanes[0].worker.process.pid, device)})
            print(json.dumps(rows[-1]), file=log, flush=True)
            if outcome.status not in ("right", "caught") or i % 25 == 24:
                print(i + 1, rows[-1], flush=True)
    finally:
        await evaluator.close()
    return {"rows": rows, "seconds": round(time.monotonic() - started, 1)}


def summary(found: dict[str, Any]) -> str:
    """Counts, and each quantity at the beginning and at the end."""
    rows = found["rows"]
    lines = [
        f"{len(rows)} evaluations in {found['seconds']:.0f} s, "
        f"median {statistics.median(row['seconds'] for row in rows):.1f} s"
    ]
    for kind, good in (("honest", "right"), ("mistake", "caught"), ("hostile", "caught")):
        mine = [row for row in rows if row["kind"] == kind]
        lines.append(f"{kind}: {sum(row['status'] == good for row in mine)} of {len(mine)} {good}")
    # The first evaluations start references and fill caches.
    tenth = max(len(rows) // 10, 1)
    lines += ["", "| | after the first tenth | at the end | most |", "|---|---|---|---|"]
    for name in (key for key in rows[-1] if isinstance(rows[-1][key], int | float) and key != "seconds"):
        early = statistics.median(row[name] for row in rows[tenth : 2 * tenth])
        late = statistics.median(row[name] for row in rows[-tenth:])
        lines.append(f"| {name} | {early:g} | {late:g} | {max(row[name] for row in rows):g} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the soak and writes soak-DEVICE.jsonl, a line an evaluation, and soak-DEVICE.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"soak-{options.device.partition(':')[0]}"
    with tempfile.TemporaryDirectory(prefix="soak-") as home, (options.out / f"{name}.jsonl").open("w") as log:
        found = asyncio.run(soak(machine.resolve(options.device), options.count, Path(home), log))
    command = f"python benchmarks/soak.py --device {options.device} --count {options.count} --out DIR"
    text = f"{platform.platform()}\n\n`{command}`\n\n{summary(found)}\n"
    (options.out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
