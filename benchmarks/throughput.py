"""Several runs in flight against one evaluator: evaluations a minute, and how much of the time its device is idle.

    python benchmarks/throughput.py --device cuda:0 --seconds 60 --out benchmarks/results/NAME

A run waits for its model (a sleep of --latency-s on average), then asks for an evaluation of a kernel that nobody has
built before, and on a GPU for the profile of one that passed; again and again. All runs share one LocalEvaluator, whose
references and baselines are there before the clock starts (eager alone: torch.compile's belong to no round). A level
ends when what was asked for within --seconds has been answered.

Who holds the device is read from /proc/locks some 50 times a second: ours, somebody else on this machine, or nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import platform
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness  # finds our packages beside this folder
import kernels

from cudaforge.engine import machine
from cudaforge.engine.lease import FOLDER
from cudaforge.engine.local import LocalEvaluator
from cudaforge.evaluation import BaselineRequest, EvaluateOptions, EvaluateRequest, ProfileRequest

HELD = {"cuda": ("load", "check", "timing", "attribution"), "cpu": ("build", "load", "check", "timing", "attribution")}
"""Stages of an evaluation for which it has the device to itself; a compiler takes the cores that are measured."""
SEED = 20261126
SAMPLE_S = 0.02


class Watch:
    """Samples who holds the lease of a device. Without /proc/locks it sees nothing."""

    def __init__(self, device: str) -> None:
        self.lock = FOLDER / f"{machine.lease_name(device)}.lock"
        self.seen: collections.Counter[str] = collections.Counter()
        self._ours: dict[int, bool] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.seen[self._holder()] += 1

    def share(self, who: str) -> float | None:
        """`ours`, `others` or `nobody`, as a share of the samples."""
        return self.seen[who] / total if (total := self.seen.total() - self.seen["unknown"]) else None

    def _holder(self) -> str:
        try:
            inode = str(self.lock.stat().st_ino)
            lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        except OSError:
            return "unknown"
        pid = next((int(f[4]) for f in lines if f[1] == "FLOCK" and f[5].rpartition(":")[2] == inode), None)
        if pid is None:
            return "nobody"
        if pid not in self._ours:
            self._ours[pid] = _is_below(pid, os.getpid())
        return "ours" if self._ours[pid] else "others"


def _is_below(pid: int, ancestor: int) -> bool:
    """Whether a process descends from another."""
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


@dataclass
class Answer:
    """One evaluation. Seconds; `asked_s` and `answered_s` since the level began."""

    run: int
    task: str
    verdict: str
    asked_s: float
    answered_s: float
    stages_s: dict[str, float]
    held_s: float
    """Seconds for which the device was held; of a profile all of it is counted."""
    profile_s: float = 0.0


class Level:
    """A number of runs in flight."""

    def __init__(self, evaluator: LocalEvaluator, cases: tuple[kernels.Case, ...], options: argparse.Namespace) -> None:
        self.evaluator, self.cases, self.options = evaluator, cases, options
        self.watch = Watch(evaluator.device)
        self.answers: list[Answer] = []

    async def measure(self, runs: int) -> dict[str, Any]:
        """All runs at once; what the level came to."""
        self.started = time.monotonic()
        watching = asyncio.create_task(self.watch.run())
        await asyncio.gather(*(self._run(runs, number) for number in range(runs)))
        watching.cancel()
        wall_s = max(a.answered_s for a in self.answers)
        held_s = sum(a.held_s for a in self.answers)
        count = len(self.answers)
        return {
            "runs": runs,
            "evaluations": count,
            "verdicts": dict(collections.Counter(a.verdict for a in self.answers)),
            "wall_s": wall_s,
            "per_minute": 60 * count / wall_s,
            "held_s": held_s / count,
            "build_s": sum(a.stages_s.get("build", 0.0) for a in self.answers) / count,
            "idle": self.watch.share("nobody"),
            "others": self.watch.share("others"),
            "answer_s": statistics.median(a.answered_s - a.asked_s for a in self.answers),
            "answers": [asdict(a) for a in self.answers],
        }

    async def _run(self, runs: int, number: int) -> None:
        """One run: its model's latency, an evaluation, the profile of what passed; until the time is up."""
        draw = random.Random(SEED + number)
        case = self.cases[number % len(self.cases)]
        for turn in range(1_000_000):
            await asyncio.sleep(self.options.latency_s * draw.uniform(0.5, 1.5))
            asked = time.monotonic() - self.started
            if asked >= self.options.seconds and self.answers:
                return
            note = f"level {runs}, run {number}, round {turn}"
            kernel = case.native(case.code(kernels.TUNES[turn % len(kernels.TUNES)], note=note))
            task, how = case.task(), self.options.how
            found = await self.evaluator.evaluate(EvaluateRequest(key=note, task=task, kernel=kernel, options=how))
            held_s = sum(found.stages_s.get(name, 0.0) for name in HELD[found.device.kind])
            answer = Answer(number, case.name, str(found.verdict), asked, 0.0, found.stages_s, held_s)
            if found.passed and self.options.profile:
                request = ProfileRequest(
                    key=f"{note}, profile", task=task, kernel=kernel, options=how, time_us=found.time_us
                )
                answer.profile_s = (await self.evaluator.profile(request)).seconds
                answer.held_s += answer.profile_s
            answer.answered_s = time.monotonic() - self.started
            self.answers.append(answer)


async def measure(options: argparse.Namespace, device: str, home: Path) -> dict[str, Any]:
    """All levels on one evaluator."""
    cases = kernels.cases(device)[: options.tasks]
    evaluator = LocalEvaluator(home, device)
    try:
        for case in cases:
            before = await evaluator.baseline(
                BaselineRequest(key=f"baseline {case.name}", task=case.task(), options=options.how)
            )
        found: dict[str, Any] = {
            "command": harness.command(),
            "machine": {
                "device": before.device.model_dump(mode="json"),
                "versions": before.versions,
                "host": platform.platform(),
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
            },
            "latency_s": options.latency_s,
            "tasks": [case.name for case in cases],
            "profile": options.profile,
            "levels": [],
        }
        for runs in options.runs:
            level = await Level(evaluator, cases, options).measure(runs)
            found["levels"].append(level)
            print(
                f"{runs} runs: {level['per_minute']:.1f} evaluations a minute, idle {_percent(level['idle'])}",
                flush=True,
            )
            write(found, options.out, device)
        return found
    finally:
        await evaluator.close()


def write(found: dict[str, Any], folder: Path, device: str) -> str:
    """Writes throughput-DEVICE.json and .md after each level; returns the latter."""
    levels = found["levels"]
    for level in levels:  # as if nobody else had measured on this machine
        level["per_minute_alone"] = level["per_minute"] / (1 - (level["others"] or 0.0))
    first = levels[0]["per_minute_alone"]
    head = (
        *("runs in flight", "evaluations", "verdicts", "a minute", "a minute without others"),
        f"over {levels[0]['runs']} in flight",
        *("device held for one, s", "build, s", "device idle", "held by others", "answer after, s"),
    )
    lines = [
        (
            *(level["runs"], level["evaluations"], ", ".join(f"{n} {v}" for v, n in level["verdicts"].items())),
            *(level["per_minute"], level["per_minute_alone"], level["per_minute_alone"] / first),
            *(level["held_s"], level["build_s"]),
            *(_percent(level["idle"]), _percent(level["others"]), level["answer_s"]),
        )
        for level in levels
    ]
    held = ", ".join(HELD[found["machine"]["device"]["kind"]])
    what = "an evaluation and the profile of what passed" if found["profile"] else "an evaluation"
    text = (
        f"{harness.described(found)}\n\nTasks {', '.join(found['tasks'])}, one for each run in turn. A model answers "
        f"after {found['latency_s']:g} s on average, then {what} is asked for. `device held`: {held}"
        f"{' and the whole profile' if found['profile'] else ''}; means. `answer after`: median of asking to answer, "
        f"waiting included. Others are whoever else measures on this machine.\n\n{harness.table(head, lines)}\n"
    )
    name = f"throughput-{device.partition(':')[0]}"
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    return text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def main() -> None:
    """Measures all levels and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 16], help="runs in flight, level by level")
    parser.add_argument("--seconds", type=float, default=60.0, help="of asking, for each level")
    parser.add_argument("--latency-s", type=float, default=4.0, help="of a model, on average")
    parser.add_argument("--tasks", type=int, default=2, help="how many tasks the runs have between them")
    parser.add_argument("--profile", action=argparse.BooleanOptionalAction, help="ask for profiles (default: on a GPU)")
    options = parser.parse_args()
    device = machine.resolve(options.device)
    options.profile = device != "cpu" if options.profile is None else options.profile
    options.how = EvaluateOptions(compile_baseline=False)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="throughput-") as home:
        found = asyncio.run(measure(options, device, Path(home)))
    print("\n" + write(found, options.out, device))


if __name__ == "__main__":
    main()
