"""The supervisor: runs only our code, holds what must stay secret, and gives the verdict.

One per device. It lends memory to a reference and to candidates, compares what lands in it, holds the clock on the
CPU, and kills whatever is late. `handle` takes a request of the Evaluator port and returns its result; local.py starts
this module as a process of its own and speaks to it over a channel.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from pathlib import Path
from typing import Any

from cudaforge.engine import check, machine, profiler, timing, verdicts
from cudaforge.engine.baseline import Stages, measure
from cudaforge.engine.bench import Bench, baseline_bench, candidate_bench, interleave, screen
from cudaforge.engine.builder import BuildFailed, BuildTimeout, Built, compile_kernel
from cudaforge.engine.hosts import SETS, CandidateFailed, CandidateHost, ReferenceHost, TaskBroken, first_errors
from cudaforge.engine.lease import lease
from cudaforge.engine.sandbox import isolation
from cudaforge.errors import EvaluatorError, TaskError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    Correctness,
    EvaluateOptions,
    EvaluateRequest,
    Evaluation,
    Interval,
    ProfileRequest,
    Request,
    Result,
    SeedCommitment,
    Speedup,
    Verdict,
    Verification,
    VerifyRequest,
    WorkloadBaseline,
    WorkloadTiming,
    geometric_mean,
)
from cudaforge.kernel import Kernel
from cudaforge.task import Task, Workload
from cudaforge_profiling.types import Device, Profile

VERIFY_GROUPS = 14
VERIFY_LIMIT_S = 15.0
"""Wall time of the interleaved blocks of one process and workload."""
KEPT_REFERENCES = 2


class Supervisor:
    """Evaluates kernels on one device. `home` holds the build cache, baselines, ceilings and locks."""

    def __init__(self, home: Path, device: str) -> None:
        self.home, self.where = home, device
        self.cache = home / "cache"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.device: Device = machine.describe(device, self.cache)
        self.references: dict[tuple[str, str], ReferenceHost] = {}

    def handle(self, request: Request) -> Result:
        """Does one request. Raises TaskError (the task's code fails) or EvaluatorError (a failure of ours)."""
        if request.options.strict_isolation:
            missing = [layer for layer in isolation() if layer.startswith("no namespaces")]
            if missing:
                raise EvaluatorError(
                    f"strict isolation is asked for, and this machine gives {missing[0]}.", "Run `cudaforge doctor`."
                )
        try:
            if isinstance(request, BaselineRequest):
                return self.baseline(request.task, request.options)
            if isinstance(request, EvaluateRequest):
                return self.evaluate(request.task, request.kernel, request.options)
            if isinstance(request, VerifyRequest):
                return self.verify(request.task, request.kernel, request.options, request.processes)
            return self.profile(request)
        except TaskBroken as broken:
            self.close()
            raise TaskError(
                f"the reference does not run: {broken}", "Run the task's Model by itself first.", file=request.task.name
            ) from None
        except EvaluatorError:
            self.close()
            raise

    # -- baseline ----------------------------------------------------------------------------------------------

    def baseline(self, task: Task, options: EvaluateOptions, *, fresh: bool = False) -> Baseline:
        """Times of eager and torch.compile, cached per task, device and versions."""
        versions = machine.versions(self.device)
        key = hashlib.sha256(f"{task.id}{self.device.name}{self.device.arch}{sorted(versions.items())}".encode())
        path = self.cache / "baselines" / f"{key.hexdigest()[:24]}.json"
        if path.is_file() and not fresh:
            return Baseline.model_validate_json(path.read_text()).model_copy(update={"cached": True})
        stages, flags, workloads = Stages(), set(), []
        for workload in task.meta.workloads:
            with stages("reference"):
                reference = self._reference(task, workload)
                reference.make_trials(_seeds(), perturb=True)
            if reference.no_float64:
                flags.add(f"no float64 reference: {reference.no_float64}")
            with lease(self.home, self.where):
                workloads.append(measure(reference, self.device, stages))
        result = Baseline(
            task=task.id,
            device=self.device,
            workloads=tuple(workloads),
            versions=versions,
            flags=tuple(sorted(flags)),
            stages_s=stages.seconds,
            isolation=isolation(),
        )
        path.parent.mkdir(exist_ok=True)
        machine.write_atomically(path, result.model_dump_json())
        return result

    # -- evaluate ----------------------------------------------------------------------------------------------

    def evaluate(self, task: Task, kernel: Kernel, options: EvaluateOptions) -> Evaluation:
        """Builds, checks and times one kernel against the task."""
        stages, account = Stages(), self._account(task, kernel)
        built = self._build(kernel, options, stages, account)
        if isinstance(built, Evaluation):
            return built
        baseline = self.baseline(task, options)
        timings: list[WorkloadTiming] = []
        results: list[Correctness] = []
        for workload, base in zip(task.meta.workloads, baseline.workloads, strict=True):
            reference = self._reference(task, workload)
            with stages("wait for device"):
                held = lease(self.home, self.where)
                held.__enter__()
            try:
                outcome = self._one_workload(reference, kernel, built, base, options, stages, account)
            finally:
                held.__exit__(None, None, None)
            if isinstance(outcome, Evaluation):
                return outcome
            timings.append(outcome[0])
            results.append(outcome[1])
        return self._passed(account, stages, timings, results, baseline)

    def _account(self, task: Task, kernel: Kernel) -> dict[str, Any]:
        """What every verdict of one evaluation carries."""
        return {
            "task": task.id,
            "kernel": kernel.id,
            "device": self.device,
            "isolation": isolation(),
            "versions": machine.versions(self.device),
            "seeds": [],
        }

    def _build(
        self, kernel: Kernel, options: EvaluateOptions, stages: Stages, account: dict[str, Any]
    ) -> Built | Evaluation:
        try:
            with stages("build"):
                built = compile_kernel(kernel, self.device, self.cache, options.build_timeout_s)
        except BuildFailed as failed:
            account["build"] = failed.build
            return verdicts.build_failed(failed, account, stages.seconds)
        except BuildTimeout:
            return Evaluation(
                verdict=Verdict.TIMEOUT,
                reason=f"the compiler took longer than {options.build_timeout_s:g} s.",
                rule="build",
                **account | {"seeds": ()},
                stages_s=stages.seconds,
            )
        account["build"] = built.build
        return built

    def _one_workload(
        self,
        reference: ReferenceHost,
        kernel: Kernel,
        built: Built,
        base: WorkloadBaseline,
        options: EvaluateOptions,
        stages: Stages,
        account: dict[str, Any],
    ) -> tuple[WorkloadTiming, Correctness] | Evaluation:
        candidate: CandidateHost | None = None
        try:
            with stages("load"):
                candidate = self._candidate(kernel, built, reference, options)
            with stages("check"):
                correctness, reason = self._check(reference, candidate, options.trials, account)
            if reason:
                account["output_tail"] = candidate.child.output[-4000:]
                return verdicts.incorrect(reason, correctness, account, stages.seconds)
            with stages("timing"):
                mine, eager = candidate_bench(candidate), baseline_bench(reference, "eager")
                screen(mine, eager, options.time_budget_s)
                self._check_timed(candidate)
            account["output_tail"] = candidate.child.output[-4000:]
            return _timing(reference.workload.name, mine, eager, base), correctness
        except CandidateFailed as failed:
            if candidate is not None:
                account["output_tail"] = candidate.child.output[-4000:]
            return verdicts.failed(failed, kernel, built.package, account, stages.seconds)
        finally:
            if candidate is not None:
                candidate.close()
                machine.prove_usable(self.where)

    def _candidate(
        self, kernel: Kernel, built: Built, reference: ReferenceHost, options: EvaluateOptions
    ) -> CandidateHost:
        # A Python-only kernel compiles while it is loaded: the build's time limit applies to it.
        timeout = options.run_timeout_s if kernel.language.source_name else options.build_timeout_s
        return CandidateHost(kernel, built, reference, timeout)

    def _check(
        self, reference: ReferenceHost, candidate: CandidateHost, trials: int, account: dict[str, Any]
    ) -> tuple[Correctness, str]:
        """All trials: fresh secret seeds, every output of every call. Returns the account and why it is wrong."""
        worst, done, flags = 0.0, 0, []
        tolerance = check.describe(reference.task.meta.tolerance)
        if reference.no_float64:
            flags.append(f"compared with eager in its own dtype: {reference.no_float64}")
        if candidate.seeded:
            flags.append("parameters by seed and construction order, not by name")
        while done < trials:
            seeds = _seeds()
            commitments = [SeedCommitment(sha256=hashlib.sha256(str(s).encode()).hexdigest(), seed=s) for s in seeds]
            account["seeds"] += commitments
            reference.make_trials(seeds, perturb=not candidate.seeded)
            candidate.give_parameters()
            said = candidate.run()
            for index in range(SETS):
                comparisons = candidate.compare(index, said[index] if index < len(said) else {})
                worst = max([worst, *(c.ratio for c in comparisons)])
                errors = first_errors(comparisons)
                if errors:
                    wrong = Correctness(
                        trials=done + 1,
                        passed=done,
                        tolerance=tolerance,
                        errors=errors,
                        worst_ratio=_finite(worst),
                        flags=tuple(flags),
                    )
                    several = len(reference.task.meta.workloads) > 1
                    where = f"workload {reference.workload.name}: " if several else ""
                    return wrong, where + verdicts.describe_errors(errors)
                done += 1
            if not candidate.inputs_intact():
                raise CandidateFailed("rule", "forward changed its inputs in place.", stage="inputs changed")
        return (
            Correctness(trials=done, passed=done, tolerance=tolerance, worst_ratio=worst, flags=tuple(flags)),
            "",
        )

    def _check_timed(self, candidate: CandidateHost) -> None:
        errors = first_errors(candidate.check_last())
        if errors:
            raise CandidateFailed(
                "rule",
                f"right when checked, wrong when timed: {verdicts.describe_errors(errors)}",
                stage="timed calls are wrong",
            )

    def _passed(
        self,
        account: dict[str, Any],
        stages: Stages,
        timings: list[WorkloadTiming],
        results: list[Correctness],
        baseline: Baseline,
    ) -> Evaluation:
        time_us = geometric_mean([t.kernel.median_us for t in timings])
        return Evaluation(
            verdict=Verdict.PASSED,
            speedup=timing.combine_speedups([t.speedup for t in timings]),
            time_us=time_us,
            share_of_floor=baseline.floor_us / time_us if baseline.floor_us else None,
            correctness=Correctness(
                trials=sum(r.trials for r in results),
                passed=sum(r.passed for r in results),
                tolerance=results[0].tolerance,
                worst_ratio=max(r.worst_ratio or 0.0 for r in results),
                flags=tuple(dict.fromkeys(flag for r in results for flag in r.flags)),
            ),
            workloads=tuple(timings),
            stages_s=stages.seconds,
            **account | {"seeds": tuple(account["seeds"])},
        )

    # -- verify ------------------------------------------------------------------------------------------------

    def verify(self, task: Task, kernel: Kernel, options: EvaluateOptions, processes: int) -> Verification:
        """The kernel again in fresh processes, blocks interleaved with eager, torch.compile and an A/A control."""
        stages, account = Stages(), self._account(task, kernel)
        built = self._build(kernel, options, stages, account)
        if isinstance(built, Evaluation):
            return Verification(evaluation=built, note="the winner did not build again")
        baseline = self.baseline(task, options)
        rng = random.Random(secrets.randbits(64))
        names = ("kernel", "eager", "control", "compile")
        timings: list[WorkloadTiming] = []
        controls: list[Interval] = []
        dropped = 0
        results: list[Correctness] = []
        for workload, base in zip(task.meta.workloads, baseline.workloads, strict=True):
            blocks: dict[str, list[float]] = {name: [] for name in names}
            samples: dict[str, list[float]] = {name: [] for name in names}
            clock = base.eager.clock
            for _ in range(processes):
                if self.device.kind == "cpu":
                    # Where a process's memory happens to lie makes a few per cent on a CPU: fresh for both sides.
                    self._forget(task, workload)
                reference = self._reference(task, workload)
                candidate: CandidateHost | None = None
                try:
                    with lease(self.home, self.where):
                        with stages("load"):
                            candidate = self._candidate(kernel, built, reference, options)
                        with stages("check"):
                            correctness, reason = self._check(reference, candidate, options.trials, account)
                        if reason:
                            wrong = verdicts.incorrect(reason, correctness, account, stages.seconds)
                            return Verification(evaluation=wrong, note="the winner was wrong when it was verified")
                        results.append(correctness)
                        with stages("timing"):
                            benches = self._verify_benches(candidate, reference, base)
                            interleave(list(benches.values()), VERIFY_GROUPS, rng, VERIFY_LIMIT_S)
                            self._check_timed(candidate)
                except CandidateFailed as failed:
                    broken = verdicts.failed(failed, kernel, built.package, account, stages.seconds)
                    return Verification(evaluation=broken, note="the winner failed when it was verified")
                finally:
                    if candidate is not None:
                        candidate.close()
                        machine.prove_usable(self.where)
                dropped += sum(bench.dropped for bench in benches.values())
                for name, bench in benches.items():
                    blocks[name] += bench.blocks_us
                    samples[name] += bench.samples_us
            calls = benches["kernel"].calls if self.device.kind == "cpu" else 1
            controls.append(timing.paired_ratio(blocks["eager"], blocks["control"]))
            compiled = blocks["compile"]
            timings.append(
                WorkloadTiming(
                    workload=workload.name,
                    kernel=timing.samples_of(samples["kernel"], clock, calls),
                    eager=timing.samples_of(samples["eager"], clock, base.eager.calls_per_sample),
                    compile=timing.samples_of(samples["compile"], clock) if compiled else None,
                    speedup=Speedup(
                        eager=timing.paired_ratio(blocks["eager"], blocks["kernel"]),
                        compile=timing.paired_ratio(compiled, blocks["kernel"]) if compiled else None,
                    ),
                )
            )
        evaluation = self._passed(account, stages, timings, results, baseline)
        control = timing.combine(controls)
        assert evaluation.speedup is not None
        win = evaluation.speedup.eager.low > max(1.0, control.high, 1 / control.low)
        note = "" if win else "a tie: the interval does not clear 1 and the A/A control's noise"
        return Verification(
            evaluation=evaluation, aa=control, win=win, processes=processes, dropped_blocks=dropped, note=note
        )

    def _verify_benches(
        self, candidate: CandidateHost, reference: ReferenceHost, base: WorkloadBaseline
    ) -> dict[str, Bench]:
        benches = {
            "kernel": candidate_bench(candidate),
            "eager": baseline_bench(reference, "eager"),
            "control": baseline_bench(reference, "eager"),
        }
        if base.compile_mode:
            benches["compile"] = baseline_bench(reference, f"compile:{base.compile_mode}")
        return benches

    # -- profile -----------------------------------------------------------------------------------------------

    def profile(self, request: ProfileRequest) -> Profile:
        """What the hardware says of a kernel that passed; a profile without counters says why."""
        stages, account = Stages(), self._account(request.task, request.kernel)
        started = time.monotonic()
        baseline = self.baseline(request.task, request.options)
        built = self._build(request.kernel, request.options, stages, account)
        if isinstance(built, Evaluation):
            raise EvaluatorError(f"a kernel that does not build cannot be profiled: {built.reason}")
        profile = profiler.from_build(request, built, baseline, self.device)
        if self.device.kind == "cuda":
            reference = self._reference(request.task, request.task.meta.workloads[0])
            reference.make_trials(_seeds(), perturb=True)
            with lease(self.home, self.where), machine.nvtx_range("profile"):
                profile = profiler.with_ncu(profile, request, built, reference, self.cache)
            machine.prove_usable(self.where)
        return profile.model_copy(update={"seconds": round(time.monotonic() - started, 3)})

    # -- processes ---------------------------------------------------------------------------------------------

    def _reference(self, task: Task, workload: Workload) -> ReferenceHost:
        """The reference's process for a workload: the one at hand, or a new one in place of the oldest."""
        key = (task.id, workload.name)
        if (at_hand := self.references.get(key)) and at_hand.child.process.poll() is not None:
            self._forget(task, workload)
        found = self.references.pop(key, None)
        if found is None:
            while len(self.references) >= KEPT_REFERENCES:
                self.references.pop(next(iter(self.references))).close()
            inductor = self.cache / "inductor"
            inductor.mkdir(exist_ok=True)
            found = ReferenceHost(task, workload, self.where, {"TORCHINDUCTOR_CACHE_DIR": str(inductor)})
        self.references[key] = found
        return found

    def _forget(self, task: Task, workload: Workload) -> None:
        """Ends the reference's process for a workload, if there is one."""
        if found := self.references.pop((task.id, workload.name), None):
            found.close()

    def close(self) -> None:
        """Ends the reference processes. Idempotent."""
        for reference in self.references.values():
            reference.close()
        self.references = {}


def _seeds() -> list[int]:
    return [secrets.randbits(63) for _ in range(SETS)]


def _timing(workload: str, mine: Bench, eager: Bench, base: WorkloadBaseline) -> WorkloadTiming:
    """Screening: paired with eager; torch.compile through its ratio to eager in the baseline's session."""
    over_eager = timing.paired_ratio(eager.blocks_us, mine.blocks_us)
    over_compile = None
    if base.compile:
        drift = timing.unpaired_ratio(base.compile.samples_us, base.eager.samples_us)
        over_compile = timing.product(over_eager, drift)
    return WorkloadTiming(
        workload=workload,
        kernel=mine.samples,
        eager=eager.samples,
        compile=base.compile,
        speedup=Speedup(eager=over_eager, compile=over_compile),
    )


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None
