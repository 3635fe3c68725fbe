"""The same kernels through our engine and through a conventional harness, stage by stage, in one run.

    python benchmarks/harness.py --device cuda:0 --budget-s 470 --out benchmarks/results/NAME
    python benchmarks/harness.py --device cpu --out benchmarks/results/NAME

Ours is LocalEvaluator with a fresh home: `cold` is a task's first kernel (reference started, baselines measured),
`warm` a later, different one, which is built anew. The conventional side is conventional.py. Device code is the same,
bound through tvm-ffi for ours and through load_inline for the other; ours judges the load_inline form, too.

On a GPU only the first task's right kernel goes through the conventional harness by itself: a build takes a minute. The
others are built side by side, one at a time on the device, and their rows say so (`--alone`: one after the other).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "profiling"), str(ROOT / "benchmarks")]

import conventional  # noqa: E402
import kernels  # noqa: E402

from cudaforge.engine import machine  # noqa: E402
from cudaforge.engine.local import LocalEvaluator  # noqa: E402
from cudaforge.errors import CudaForgeError  # noqa: E402
from cudaforge.evaluation import (  # noqa: E402
    BaselineRequest,
    EvaluateOptions,
    EvaluateRequest,
    ProfileRequest,
)
from cudaforge.kernel import Kernel  # noqa: E402
from cudaforge_profiling.metrics import METRIC_SETS  # noqa: E402

QUICK = EvaluateOptions(trials=2, time_budget_s=0.02, compile_baseline=False)
RIGHT = "right"
EVERYDAY = next(iter(METRIC_SETS))
"""The set of metrics that a round asks for."""
EVALUATION_S, ROUND_S = 90.0, 170.0
"""What the conventional harness needs for a kernel on a GPU, without and with a profile, until that was measured."""

EARLIER = {
    "start": (4.7, "3.5 to 6.2 s for `import torch` alone, by how warm the file cache is"),
    "build": (63.0, "by the cores' speed and by what this version of torch/extension.h includes"),
    "evaluation": (91.0, "that one made 1.6 G elements on the CPU for each trial; a task here has at most 0.03 G"),
    "profile without build": (9.0, "by how many launches there are, and by the sections' passes"),
    "profile": (77.0, "it is the build and ncu together, see there"),
}
"""Seconds read on one H100 (driver 580.159, CUDA 13.0, torch 2.11.0, ncu 2025.3.1, 16 cores) on 2026-11-22, a ReLU; and
what they depend on."""
WITHIN = 1.5


@dataclass
class Row:
    """One kernel through one harness. All times in seconds; `stages_s` and `baseline_s` are parts of `seconds`."""

    task: str
    kernel: str
    """RIGHT, or the mistake in it."""
    harness: str
    form: str
    state: str
    """Ours: cold or warm. Conventional: alone, or beside N other kernels that build at the same time."""
    verdict: str
    expected: str
    reason: str
    seconds: float
    stages_s: dict[str, float]
    baseline_s: dict[str, float] = field(default_factory=dict)
    profile_s: dict[str, float] = field(default_factory=dict)
    """Ours: a whole request for each set of metrics. Conventional: stages of the profile's process."""
    profile_failed: str = ""
    speedup: float | None = None

    @property
    def profile(self) -> float | None:
        """Seconds of an everyday profile; None where there was none or a part of it is missing."""
        if self.profile_failed:
            return None
        if self.harness == "cudaforge":
            return self.profile_s.get(EVERYDAY)
        return sum(s for n, s in self.profile_s.items() if n != "wait") if self.profile_s else None


class Comparison:
    """One run: evaluates, keeps rows, and writes them after every step, so that a run that is cut off leaves them."""

    def __init__(self, options: argparse.Namespace, home: Path) -> None:
        self.options, self.home = options, home
        self.device = machine.resolve(options.device)
        self.cases = kernels.cases(self.device)[: 1 if options.quick else None]
        self.evaluator = LocalEvaluator(home / "home", self.device)
        self.together = self.device != "cpu" and not options.alone
        self.ncu = (shutil.which("ncu") or "") if self.device != "cpu" else ""
        self.ends = time.monotonic() + options.budget_s if options.budget_s else float("inf")
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        self.machine: dict[str, Any] = {}
        self._count = 0

    @property
    def left_s(self) -> float:
        """Seconds until the budget is spent."""
        return self.ends - time.monotonic()

    async def run(self) -> None:
        """All steps, the most telling first."""
        first, *others = self.cases
        try:
            await self.start(first)
            await self.ours(first)
            await self.conventionally([(first, None)])
            for case in others:
                await self.ours(case)
            rest = [(case, mistake) for case in self.cases for mistake in (None, *self.mistakes(case))][1:]
            modules = [] if self.options.quick else [first] if self.together else self.cases
            if self.together:
                await asyncio.gather(self.conventionally(rest), *(self.as_module(c, len(rest)) for c in modules))
            else:
                for case in modules:
                    await self.as_module(case)
                for one in rest:
                    await self.conventionally([one])
        finally:
            await self.evaluator.close()

    def mistakes(self, case: kernels.Case) -> tuple[kernels.Mistake, ...]:
        """The wrong kernels of a task that this run looks at."""
        return () if self.options.quick else case.mistakes

    # -- our side ------------------------------------------------------------------------------------------------

    def _key(self) -> str:
        self._count += 1
        return f"harness-{self._count}"

    async def start(self, case: kernels.Case) -> None:
        """Starts the evaluator with a kernel that does not build: its process, torch, and the device measured."""
        broken = case.native(case.code() + "#error this kernel does not build\n")
        started = time.monotonic()
        found = await self.evaluator.evaluate(EvaluateRequest(key=self._key(), task=case.task(), kernel=broken))
        self.machine = {
            "device": found.device.model_dump(mode="json"),
            "versions": found.versions,
            "host": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "isolation": found.isolation,
            "evaluator_start_s": time.monotonic() - started - found.stages_s.get("build", 0.0),
        }
        print(f"evaluator started in {self.machine['evaluator_start_s']:.1f} s: {found.verdict}", flush=True)

    async def ours(self, case: kernels.Case) -> None:
        """A task's first kernel, another right one, and the wrong ones."""
        profiles = tuple(METRIC_SETS) if self.ncu else ()
        # The everyday profile of the very first kernel also asks ncu once which metrics the chip has.
        first = profiles[:1] if case is self.cases[0] else ()
        await self._evaluate(case, case.native(case.code()), "tvm-ffi", "cold", profiles=first)
        await self._evaluate(case, case.native(case.code(kernels.TUNES[1])), "tvm-ffi", "warm", profiles=profiles)
        for mistake in self.mistakes(case):
            wrong = case.native(case.code(mistake=mistake))
            await self._evaluate(case, wrong, "tvm-ffi", "warm", mistake=mistake)

    async def as_module(self, case: kernels.Case, beside: int = 0) -> None:
        """The load_inline form through our engine."""
        if self.left_s < self._needed_s()[0]:
            self.left_out.append(f"{case.name}, load_inline through cudaforge")
            return
        state = f"warm, beside {beside} builds" if beside else "warm"
        await self._evaluate(case, case.module(case.code(kernels.TUNES[2])), "load_inline", state)

    async def _evaluate(
        self,
        case: kernels.Case,
        kernel: Kernel,
        form: str,
        state: str,
        *,
        mistake: kernels.Mistake | None = None,
        profiles: Iterable[str] = (),
    ) -> None:
        task, options = case.task(), QUICK if self.options.quick else EvaluateOptions()
        started = time.monotonic()
        try:
            found = await self.evaluator.evaluate(
                EvaluateRequest(key=self._key(), task=task, kernel=kernel, options=options)
            )
        except CudaForgeError as error:
            self.left_out.append(f"{case.name}, {form} through cudaforge: {error.message}")
            return
        row = Row(
            task=case.name,
            kernel=mistake.name if mistake else RIGHT,
            harness="cudaforge",
            form=form,
            state=state,
            verdict=str(found.verdict),
            expected="INCORRECT" if mistake else "PASSED",
            reason=found.reason,
            seconds=time.monotonic() - started,
            stages_s=found.stages_s,
            speedup=found.speedup.eager.value if found.speedup else None,
        )
        if state == "cold":
            base = await self.evaluator.baseline(BaselineRequest(key=self._key(), task=task, options=options))
            row.baseline_s = base.stages_s
        for name in profiles if found.passed else ():
            started = time.monotonic()
            request = ProfileRequest(
                key=self._key(), task=task, kernel=kernel, options=options, metric_set=name, time_us=found.time_us
            )
            profile = await self.evaluator.profile(request)
            row.profile_s[name] = time.monotonic() - started
            row.profile_failed = row.profile_failed or profile.unavailable
        self._keep(row)

    # -- the conventional side -----------------------------------------------------------------------------------

    async def conventionally(self, wanted: list[tuple[kernels.Case, kernels.Mistake | None]]) -> None:
        """Kernels through the conventional harness: one by itself, several side by side."""
        state = f"beside {len(wanted) - 1} builds" if len(wanted) > 1 else "alone"
        await asyncio.gather(*(self._conventional(case, mistake, state) for case, mistake in wanted))

    def _needed_s(self) -> tuple[float, float]:
        """Seconds that the conventional harness needs for an evaluation, and with a profile: as measured, and a bit."""
        alone = next((r for r in self.rows if r.harness == "conventional"), None)
        if alone is None:
            return EVALUATION_S, ROUND_S
        return 1.15 * alone.seconds, 1.15 * (alone.seconds + (alone.profile or 0.0))

    async def _conventional(self, case: kernels.Case, mistake: kernels.Mistake | None, state: str) -> None:
        name = mistake.name if mistake else RIGHT
        evaluation_s, round_s = self._needed_s()
        if self.left_s < evaluation_s:
            self.left_out.append(f"{case.name}, {name}: conventional, {self.left_s:.0f} s of the budget were left")
            return
        ncu = self.ncu if self.left_s >= round_s else ""
        if self.ncu and not ncu and mistake is None:
            self.left_out.append(f"{case.name}, {name}: conventional profile, the budget does not suffice")
        self._count += 1
        found = await asyncio.to_thread(
            conventional.run,
            case.task().source,
            case.inline(case.code(mistake=mistake)),
            self.device,
            self.home / f"conventional-{self._count}",
            lease=machine.lease_name(self.device),
            ncu=ncu,
            calls=3 if self.options.quick else conventional.CALLS,
            timeout_s=min(400.0, self.left_s),
        )
        if found.verdict == "TIMEOUT":
            self.left_out.append(f"{case.name}, {name}: conventional, {found.reason}")
            return
        self._keep(
            Row(
                task=case.name,
                kernel=name,
                harness="conventional",
                form="load_inline",
                state=state,
                verdict=found.verdict,
                expected="PASSED" if mistake is None or mistake.missed else "INCORRECT",
                reason=found.reason if found.verdict != "PASSED" else "",
                seconds=found.seconds,
                stages_s=found.stages_s,
                profile_s=found.profile_s,
                profile_failed=found.profile_failed,
                speedup=found.speedup,
            )
        )

    # -- what was found ------------------------------------------------------------------------------------------

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        self.machine["load"] = max(self.machine["load"], os.getloadavg()[0])
        profile = f", profile {row.profile:.1f} s" if row.profile else ""
        what = f"{row.task}, {row.kernel}: {row.harness}, {row.form}, {row.state}"
        print(f"{what}: {row.verdict} in {row.seconds:.1f} s{profile}", flush=True)
        self.write()

    def result(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "command": command(),
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows],
            "ratios": ratios(self.rows),
            "agreement": agreement(self.rows),
            "earlier": earlier(self.rows) if self.device != "cpu" else [],
            "left_out": self.left_out,
        }

    def write(self) -> str:
        """Writes harness-DEVICE.json and .md; returns the latter."""
        found = self.result()
        text = markdown(found, self.rows)
        name = f"harness-{self.device.partition(':')[0]}"
        (self.options.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        (self.options.out / f"{name}.md").write_text(text)
        return text


# -- numbers ------------------------------------------------------------------------------------------------------


def parts(row: Row) -> dict[str, float | None]:
    """A row's seconds by columns that both sides have; `rest` is what no stage accounts for."""
    stages = row.stages_s
    ours = row.harness == "cudaforge"
    found: dict[str, float | None] = {
        "start": stages.get("load" if ours else "start"),
        "build": stages.get("build"),
        "check": stages.get("check"),
        "timing": stages.get("timing"),
        "attribution": stages.get("attribution"),
        "baseline": sum(row.baseline_s.values()) if row.baseline_s else None,
    }
    known = sum(s for s in found.values() if s is not None)
    waited = stages.get("wait for device", 0.0) if ours else 0.0  # a conventional row's seconds are without it
    return {**found, "rest": row.seconds - known - waited, "evaluation": row.seconds - waited, "profile": row.profile}


def ratios(rows: list[Row]) -> list[dict[str, Any]]:
    """For each task: seconds of the conventional harness over ours, for the right kernel."""
    found = []
    for theirs in (r for r in rows if r.harness == "conventional" and r.kernel == RIGHT):
        for mine in (r for r in rows if r.harness == "cudaforge" and r.kernel == RIGHT and r.task == theirs.task):
            a, b = parts(theirs), parts(mine)
            # Some of a check and of the clock's work lies in stages of their own on one side only.
            for side in (a, b):
                side["judging"] = sum(side[n] or 0.0 for n in ("check", "timing", "attribution"))
                whole = [side["evaluation"], side["profile"]]
                side["round"] = sum(s for s in whole if s) if all(whole) else None
            names = ("start", "build", "judging", "evaluation", "profile", "round")
            ratio = {n: x / y for n in names if (x := a[n]) and (y := b[n])}
            found.append({"task": theirs.task, "theirs": theirs.state, "ours": f"{mine.form}, {mine.state}", **ratio})
    return found


def agreement(rows: list[Row]) -> list[dict[str, Any]]:
    """For each kernel: both sides' verdicts and what was expected of them."""
    found = []
    for task, kernel in dict.fromkeys((r.task, r.kernel) for r in rows):
        here = [r for r in rows if (r.task, r.kernel) == (task, kernel)]
        ours, theirs = ({r.verdict for r in here if r.harness == h} for h in ("cudaforge", "conventional"))
        found.append(
            {
                "task": task,
                "kernel": kernel,
                "ours": sorted(ours),
                "conventional": sorted(theirs),
                "agree": ours == theirs if ours and theirs else None,
                "as expected": all(r.verdict == r.expected for r in here),
            }
        )
    return found


def earlier(rows: list[Row]) -> list[dict[str, Any]]:
    """The conventional side, by itself, beside earlier readings of such a harness."""
    row = next((r for r in rows if r.harness == "conventional" and r.state == "alone"), None)
    if row is None:
        return []
    now = {**parts(row)}
    now["profile without build"] = row.profile - row.profile_s.get("build", 0.0) if row.profile else None
    found = []
    for name, (before, why) in EARLIER.items():
        seconds = now[name]
        if seconds is None:
            continue
        factor = seconds / before
        inside = 1 / WITHIN <= factor <= WITHIN
        found.append({"stage": name, "now_s": seconds, "earlier_s": before, "factor": factor, "within": inside})
        if not inside:
            found[-1]["why"] = why
    return found


# -- text ---------------------------------------------------------------------------------------------------------


def command() -> str:
    """What was typed, without this machine's paths."""
    shown = [*sys.argv[1:]]
    if "--out" in shown:
        shown[shown.index("--out") + 1] = "DIR"
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """Markdown. Columns in which there is nothing are left out."""
    columns = list(zip(list(head), *(list(line) for line in lines), strict=True))
    kept = [column for column in columns if any(value not in (None, "") for value in column[1:])]
    rows = list(zip(*([name, "---", *(_cell(value) for value in values)] for name, *values in kept), strict=True))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def described(found: dict[str, Any]) -> str:
    """The machine and its versions in a line, and the command."""
    device = found["machine"].get("device", {})
    versions = ", ".join(f"{name} {version}" for name, version in found["machine"].get("versions", {}).items())
    head = f"{device.get('name', 'unknown device')}, {found['machine'].get('cores')} cores; {versions}"
    return f"{head}; load average up to {found['machine'].get('load', 0.0):.1f}\n\n`{found['command']}`"


def markdown(found: dict[str, Any], rows: list[Row]) -> str:
    """The report."""
    columns = ("start", "build", "check", "timing", "attribution", "baseline", "rest", "evaluation", "profile")
    on_gpu = found["machine"].get("device", {}).get("kind") == "cuda"
    lines = [
        *[described(found), ""],
        f"Our evaluator started once, in {found['machine'].get('evaluator_start_s', 0.0):.1f} s (torch imported, the "
        "device measured). All numbers are seconds. `start`: until a process is ready; ours is forked and lent its "
        "memory, the other imports torch. `rest`: what belongs to no stage, such as the end of a process.",
    ]
    if on_gpu:
        lines[-1] += (
            f" `profile`: the set of metrics `{EVERYDAY}` here, {len(conventional.SECTIONS)} sections in a process "
            "that builds again there."
        )
    lines += [
        "",
        table(("task", "kernel", "harness", "form", "state", "verdict", *columns), _stage_lines(rows, columns)),
    ]
    if found["ratios"]:
        names = ("start", "build", "judging", "evaluation", "profile", "round")
        told = [[r["task"], r["theirs"], r["ours"], *(r.get(n) for n in names)] for r in found["ratios"]]
        what = "The conventional harness's seconds over ours, right kernels. `judging`: check, timing and attribution."
        lines += ["", what, "", table(("task", "conventional", "ours", *names), told)]
    sets = [
        (r.task, r.state, name, s, r.profile_failed)
        for r in rows
        if r.harness == "cudaforge"
        for name, s in r.profile_s.items()
    ]
    if sets:
        lines += ["", "Our profiles, seconds:", "", table(("task", "kernel", "metrics", "seconds", "missing"), sets)]
    verdicts = [
        (
            a["task"],
            a["kernel"],
            ", ".join(a["ours"]),
            ", ".join(a["conventional"]),
            _yes(a["agree"]),
            _yes(a["as expected"]),
        )
        for a in found["agreement"]
    ]
    lines += ["", table(("task", "kernel", "ours", "conventional", "agree", "as expected"), verdicts)]
    if found["earlier"]:
        told = [[e["stage"], e["now_s"], e["earlier_s"], e["factor"], e.get("why", "")] for e in found["earlier"]]
        head = ("conventional, alone", "now, s", "2026-11-22, s", "factor", f"where not within {WITHIN}: it depends on")
        lines += ["", table(head, told)]
    failed = [f"{r.task}, {r.harness}: {r.profile_failed}" for r in rows if r.profile_failed]
    for title, items in (("Left out", found["left_out"]), ("Profiles that failed", failed)):
        if items:
            lines += ["", f"{title}:", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"


def _stage_lines(rows: list[Row], columns: tuple[str, ...]) -> list[list[object]]:
    return [
        [r.task, r.kernel, r.harness, r.form, r.state, r.verdict, *(parts(r)[name] for name in columns)] for r in rows
    ]


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def main() -> None:
    """Runs the comparison and writes harness-DEVICE.json and harness-DEVICE.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--budget-s", type=float, default=0.0, help="begin nothing that would take longer (0: no limit)"
    )
    parser.add_argument("--alone", action="store_true", help="conventional builds one after the other on a GPU, too")
    parser.add_argument("--quick", action="store_true", help="one task, one kernel, few repetitions: a smoke test")
    options = parser.parse_args()
    if shutil.which("ninja") is None:
        parser.error("load_inline needs ninja on PATH: pip install ninja")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="harness-") as home:
        comparison = Comparison(options, Path(home))
        asyncio.run(comparison.run())
        print("\n" + comparison.write())


if __name__ == "__main__":
    main()
