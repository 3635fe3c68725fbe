"""The supervisor: runs only our code, holds what must stay secret, and gives the verdict.

One per device. It lends memory to a reference and to candidates, compares what lands in it, holds the clock on the
CPU, and kills whatever is late. `handle` takes a request of the Evaluator port and returns its result; local.py starts
this module as a process of its own and speaks to it over a channel.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cudaforge.engine import attribution, check, confine, machine, physics, profiler, sanitizer, timing, verdicts
from cudaforge.engine.admission import RANDOM
from cudaforge.engine.baseline import Stages, measure
from cudaforge.engine.bench import Bench
from cudaforge.engine.builder import BuildFailed, BuildTimeout, Built, compile_kernel, settings_for
from cudaforge.engine.hosts import (
    SETS,
    CandidateFailed,
    CandidateHost,
    Host,
    ReferenceHost,
    TaskBroken,
    Twin,
    first_errors,
    floating,
)
from cudaforge.engine.lease import lease
from cudaforge.engine.memory import NoRoomError, free_bytes
from cudaforge.engine.recipes import NATURAL, RECIPES, TIES
from cudaforge.engine.sandbox import CLOCK_LAYERS, isolation
from cudaforge.engine.session import Session, alone
from cudaforge.engine.waiting import Waiting, clear, new_folder
from cudaforge.errors import EvaluatorError, TaskError
from cudaforge.evaluation import (
    Attribution,
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
"""Wall time of the interleaved batches of one process and workload."""
REPEATS = 3
"""Further runs on one input, whose results are compared bit by bit."""
SLOWED_GPU, SLOWED_LITTLE, SLOWED_CPU = 1.1, 1.02, 2.0
"""A baseline that is slower by more beside a candidate than without it was slowed down: so much that it is the kernel's
doing, or a little. On a CPU noise alone does it, so there it only says that the numbers cannot be relied on."""
BASELINE = 2
"""What kept baselines hold: one that was measured or counted otherwise has another number."""
ALONE_BATCHES = 9
"""Of eager by itself, where that is measured with the clock for calls that wait on the host, which scatters."""
MOST_REFERENCES, REFERENCES_SHARE = 8, 0.35
"""Reference processes that are kept for tasks that may come again, and the share of the device's memory for them."""
ROOM_SHARE = 0.4
"""Share of a GPU's memory that ought to be free for whoever holds the device while this process waits for it."""
ALONE_S = 120.0
"""How long the times of eager without a candidate stand."""

T = TypeVar("T")


class _Watched:
    """Attribution on the CPU, once the session calls `take`; a kernel on a GPU has been traced."""

    def __init__(self, session: Session, built: Built, stages: Stages) -> None:
        self.session, self.built, self.stages = session, built, stages
        self.found: Attribution | None = None

    def take(self) -> None:
        """Watches some batches."""
        if not self.session.reference.gpu:
            with self.stages("attribution"):
                self.found = attribution.on_cpu(self.session, self.built)


class Supervisor:
    """Evaluates kernels on one device. `home` holds the build cache, baselines, ceilings and locks."""

    def __init__(self, home: Path, device: str) -> None:
        self.home, self.where = home, device
        self.cache = home / "cache"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.device: Device = machine.describe(device, self.cache)
        self.leased_as = machine.lease_name(device)
        self.profilers = profiler.Profilers(self.device, device, self.cache)
        self.references: dict[tuple[str, str], ReferenceHost] = {}
        self.waiting: Waiting | None = None
        """A process with its context made, for the next kernel."""
        for kind in ("candidates", "profiles"):
            clear(self.cache / kind)

    def handle(self, request: Request, *, built_late: bool = False) -> Result:
        """Does one request. Raises TaskError (the task's code fails) or EvaluatorError (a failure of ours).

        `built_late`: a builder has tried this kernel for as long as a build may take, so it is not tried again.
        """
        if request.options.strict_isolation:
            missing = confine.missing(isolation())
            if missing:
                raise EvaluatorError(
                    f"strict isolation is asked for, and this machine gives {missing[0]}.", "Run `cudaforge doctor`."
                )
        try:
            return self._with_room(None, lambda: self._do(request, built_late))
        except TaskBroken as broken:
            self.close()
            what, hint = "the reference does not run", "Run the task's Model by itself first."
            if broken.unsteady:
                what, hint = "the task has no single right answer", "Draw by torch alone what Model keeps."
            raise TaskError(f"{what}: {broken}", hint, file=request.task.name) from None
        except EvaluatorError:
            self.close()
            raise

    def _do(self, request: Request, built_late: bool) -> Result:
        with _memory_told(self.device):
            if isinstance(request, BaselineRequest):
                return self.baseline(request.task, request.options)
            if isinstance(request, EvaluateRequest):
                return self.evaluate(request.task, request.kernel, request.options, built_late=built_late)
            if isinstance(request, VerifyRequest):
                return self.verify(request.task, request.kernel, request.options, request.processes)
            return self.profile(request)

    # -- baseline ----------------------------------------------------------------------------------------------

    def baseline(self, task: Task, options: EvaluateOptions, *, fresh: bool = False) -> Baseline:
        """Times of eager and torch.compile, cached per task, device and versions."""
        path = self._baseline_path(task, options)
        if path.is_file() and not fresh:
            return Baseline.model_validate_json(path.read_text()).model_copy(update={"cached": True})
        stages, flags, workloads = Stages(), set(), []
        for workload in task.meta.workloads:
            with self._held(stages):
                with stages("reference"):
                    reference = self._reference(task, workload)
                several = f" ({workload.name})" if len(task.meta.workloads) > 1 else ""
                admitted, live = self._admit(task, reference, stages)
                found = measure(reference, self.device, stages, with_compile=options.compile_baseline)
            flags |= {f"task: {flag}{several}" for flag in admitted}
            if reference.no_float64:
                flags.add(f"no float64 reference: {reference.no_float64}")
            workloads.append(found.model_copy(update={"live_bytes": live}))
        result = Baseline(
            task=task.id,
            device=self.device,
            workloads=tuple(workloads),
            versions=machine.versions(self.device),
            flags=tuple(sorted(flags)),
            stages_s=stages.seconds,
            isolation=isolation(),
        )
        path.parent.mkdir(exist_ok=True)
        machine.write_atomically(path, result.model_dump_json())
        return result

    def _baseline_path(self, task: Task, options: EvaluateOptions) -> Path:
        versions = sorted(machine.versions(self.device).items())
        key = hashlib.sha256(f"{BASELINE}{task.id}{self.device.name}{self.device.arch}{versions}".encode())
        with_compile = "" if options.compile_baseline else "-eager"
        return self.cache / "baselines" / f"{key.hexdigest()[:24]}{with_compile}.json"

    def _admit(self, task: Task, reference: ReferenceHost, stages: Stages) -> tuple[tuple[str, ...], int]:
        """Flags of the task, and the bytes of its inputs that matter; TaskError where it has no single right answer."""
        with stages("admission"):
            admitted, live = reference.admit()
            reference.make_trials(_seeds(), [NATURAL] * SETS, perturb=True)
        random_task = next((flag for flag in admitted if flag.startswith(RANDOM)), "")
        if random_task:
            raise TaskError(
                f"the task has no single right answer: {random_task.removeprefix(RANDOM)}",
                "Call self.eval() in the constructor, or leave out what draws random numbers.",
                file=task.name,
            )
        return admitted, live

    # -- evaluate ----------------------------------------------------------------------------------------------

    def evaluate(self, task: Task, kernel: Kernel, options: EvaluateOptions, *, built_late: bool = False) -> Evaluation:
        """Builds, checks and times one kernel against the task."""
        stages, account = Stages(), self._account(task, kernel)
        if built_late:
            return verdicts.built_late(options.build_timeout_s, account, stages.seconds)
        built = self._build(kernel, options, stages, account)
        if isinstance(built, Evaluation):
            return built
        baseline = self.baseline(task, options)
        timings: list[WorkloadTiming] = []
        results: list[Correctness] = []
        for workload, base in zip(task.meta.workloads, baseline.workloads, strict=True):
            with self._held(stages):
                with stages("reference"):
                    reference = self._reference(task, workload)
                outcome = self._one_workload(reference, kernel, built, base, options, stages, account)
            if isinstance(outcome, Evaluation):
                return outcome
            timings.append(outcome[0])
            results.append(outcome[1])
        return self._passed(account, stages, timings, results, baseline)

    def prepare(self, task: Task, options: EvaluateOptions) -> None:
        """GPU: makes what an evaluation of this task needs before there is a binary, while a kernel is built: the
        reference, eager's times without a candidate, a process with its context. Nothing where a baseline is due."""
        if self.device.kind != "cuda" or not self._baseline_path(task, options).is_file():
            return
        try:
            with self._held(Stages()):
                self._eager_alone(self._reference(task, task.meta.workloads[0]))
                if self.waiting is None or not self.waiting.alive:
                    self._stop_waiting()
                    folder = new_folder(self.cache / "candidates")
                    self.waiting = Waiting(folder, self.where, (), settings_for(self.device))
                    self.waiting.settle(on_device=True)
        except (TaskBroken, EvaluatorError):
            self.close()  # the evaluation says what is wrong

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.close()
            self.waiting = None

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
        self,
        kernel: Kernel,
        options: EvaluateOptions,
        stages: Stages,
        account: dict[str, Any],
        *,
        as_it_leaves: bool = False,
    ) -> Built | Evaluation:
        try:
            # On the CPU a compiler takes the cores on which somebody else may be timing.
            with self._held(stages) if self.device.kind == "cpu" else contextlib.nullcontext(), stages("build"):
                timeout_s = options.build_timeout_s
                built = compile_kernel(kernel, self.device, self.cache, timeout_s, as_it_leaves=as_it_leaves)
        except BuildFailed as failed:
            account["build"] = failed.build
            return verdicts.build_failed(failed, account, stages.seconds)
        except BuildTimeout:
            return verdicts.built_late(options.build_timeout_s, account, stages.seconds)
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
        try:
            with stages("timing"):
                before = self._eager_alone(reference) if reference.gpu else None
            with self._candidate(kernel, built, reference, options, stages, account) as candidate:
                with stages("check"):
                    correctness, reason = self._check(reference, candidate, options.trials, account)
                if reason:
                    return verdicts.incorrect(reason, correctness, account, stages.seconds)
                with stages("attribution"):
                    traced = self._traced(candidate, kernel, built)
                with stages("timing"):
                    eager_only: dict[str, tuple[Host, str]] = {"eager": (reference.timed, "eager")}
                    session = Session(reference, eager_only, candidate, options.run_timeout_s, before=before)
                    watched = _Watched(session, built, stages)
                    session.screen(options.time_budget_s, watched.take)
                mine, eager = session.kernel, session.eager
                with stages("attribution"):
                    found = self._fair(session, kernel, base, traced or watched.found)
                with stages("timing"):
                    mine.look_aside()
            if before:
                with stages("timing"):
                    correctness = _flagged(correctness, _slowed(session, before))
            return _timing(reference.workload.name, mine, eager, base, found), correctness
        except CandidateFailed as failed:
            return verdicts.failed(failed, kernel, built.package, account, stages.seconds)

    @contextlib.contextmanager
    def _candidate(
        self,
        kernel: Kernel,
        built: Built,
        reference: ReferenceHost,
        options: EvaluateOptions,
        stages: Stages,
        account: dict[str, Any],
    ) -> Iterator[CandidateHost]:
        """A fresh candidate process; afterwards it is gone and the device is proved usable."""
        candidate: CandidateHost | None = None
        ready: Waiting | None = None

        def start() -> CandidateHost:
            nonlocal ready
            ready, self.waiting = self.waiting or ready, None  # asked again where there was no room
            if ready and ready.alive:
                ready.settle(on_device=True)  # whatever has happened on the device since
            if ready and ready.alive:
                with contextlib.suppress(OSError):  # it cannot be copied; a fresh process reads it where it is
                    return CandidateHost(kernel, built, reference, options.run_timeout_s, waiting=ready)
            return CandidateHost(kernel, built, reference, options.run_timeout_s)

        try:
            if kernel.language.source_name is None:
                with stages("build"):
                    self._let_it_build(kernel, built, reference, options, account)
            with stages("load"):
                candidate = self._with_room(reference, start)
            yield candidate
        finally:
            if candidate is not None:
                account["output_tail"] = candidate.child.output[-4000:]
                account["isolation"] = (*CLOCK_LAYERS, *candidate.child.layers)
                candidate.close()
                machine.prove_usable(self.where)
            if ready is not None:
                ready.close()

    def _let_it_build(
        self, kernel: Kernel, built: Built, reference: ReferenceHost, options: EvaluateOptions, account: dict[str, Any]
    ) -> None:
        """Runs a Python-only kernel once in a process that may start compilers and write the kernel's cache."""
        name = hashlib.sha256(reference.workload.model_dump_json().encode()).hexdigest()[:12]
        done = built.package.parent / f"built-{name}"
        if done.is_file():
            return
        reference.make_trials(_seeds(), [NATURAL] * SETS, perturb=False)
        builder: CandidateHost | None = None
        try:
            builder = self._with_room(
                reference,
                lambda: CandidateHost(kernel, built, reference, options.build_timeout_s, building=True, timed=False),
            )
            builder.give_inputs(range(SETS))
            builder.run(guard=False, stage="build")
        finally:
            if builder is not None:
                account["output_tail"] = builder.child.output[-4000:]
                builder.close()
                machine.prove_usable(self.where)
        done.touch()

    def _check(
        self, reference: ReferenceHost, candidate: CandidateHost, trials: int, account: dict[str, Any]
    ) -> tuple[Correctness, str]:
        """All trials: fresh secret seeds, every output of every call. Returns the account and why it is wrong."""
        worst, done, flags = 0.0, 0, []
        tolerance = check.describe(reference.task.meta.tolerance)
        exact_only = any(not floating(dtype) for dtype, _ in reference.output_specs)
        recipes = recipe_order(exact_only)
        if reference.no_float64:
            flags.append(f"compared with eager in its own dtype: {reference.no_float64}")
        if candidate.flag:
            flags.append(candidate.flag)
        while done < trials:
            seeds = _seeds()
            commitments = [SeedCommitment(sha256=hashlib.sha256(str(s).encode()).hexdigest(), seed=s) for s in seeds]
            account["seeds"] += commitments
            asked = [next(recipes) for _ in seeds]
            used = reference.make_trials(seeds, asked, perturb=candidate.perturbed)
            candidate.give_parameters()
            candidate.give_inputs(range(SETS))
            said = candidate.run()
            if not candidate.inputs_intact():
                raise CandidateFailed("rule", "forward changed its inputs in place.", stage="inputs changed")
            for index in range(SETS):
                comparisons = candidate.compare(index, said[index])
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
                    values = "" if used[index] == NATURAL else f"on inputs with {used[index]}: "
                    return wrong, where + values + verdicts.describe_errors(errors)
                done += 1
        flags += self._repeat(candidate)
        return (
            Correctness(trials=done, passed=done, tolerance=tolerance, worst_ratio=worst, flags=tuple(flags)),
            "",
        )

    def _repeat(self, candidate: CandidateHost) -> list[str]:
        """The same inputs again and again: what differs, in words. Raises CandidateFailed where a run is wrong."""
        landing = candidate.buffers["landing0"]
        kept = [landing.tensor(i).clone() for i in range(len(candidate.reference.output_specs))]
        rounding = False
        for _ in range(REPEATS):
            said = candidate.run(guard=False)
            errors = first_errors(candidate.compare(0, said[0]))
            again = [landing.tensor(i) for i in range(len(kept))]
            if errors:
                text = "one run of the same input is right and another is not (a race?): "
                raise CandidateFailed("form", text + verdicts.describe_errors(errors), stage="check")
            for before, now in zip(kept, again, strict=True):
                difference = check.differs(before, now)
                if difference > check.ROUNDINGS:
                    return [f"suspected race: two runs on the same input differ by {difference:.0f} roundings"]
                rounding = rounding or difference > 0
        return ["runs on the same input differ within rounding: the order of a sum varies"] if rounding else []

    def _fair(
        self, session: Session, kernel: Kernel, base: WorkloadBaseline, found: Attribution | None
    ) -> Attribution | None:
        """Whose code did the work, and whether the time is possible. Raises CandidateFailed where a rule is broken."""
        mine, gpu = session.kernel, self.device.kind == "cuda"
        time_us = statistics.median(mine.samples_us)
        impossible = physics.impossible(base, self.device, mine.calls, time_us)
        if impossible:
            raise CandidateFailed("rule", impossible, stage="impossible time")
        untraced = mine.kind == "host" or attribution.starts_kernels_itself(kernel)
        why = attribution.rule(found, time_us, gpu=gpu, untraced=untraced) if found else ""
        if why and not session.reference.task.meta.allow_libraries:
            raise CandidateFailed("rule", f"no custom kernel: {why}", stage="no custom kernel")
        return found

    def _traced(self, candidate: CandidateHost, kernel: Kernel, built: Built) -> Attribution | None:
        """What the kernel launches on a GPU; on the CPU it is watched later, while it is timed."""
        return attribution.on_gpu(candidate, kernel, built) if self.device.kind == "cuda" else None

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
                flags=tuple(dict.fromkeys([*baseline.flags, *(flag for r in results for flag in r.flags)])),
            ),
            workloads=tuple(timings),
            stages_s=stages.seconds,
            **_plain(account),
        )

    # -- verify ------------------------------------------------------------------------------------------------

    def verify(self, task: Task, kernel: Kernel, options: EvaluateOptions, processes: int) -> Verification:
        """The kernel again in fresh processes, batches interleaved with eager, torch.compile and an A/A control."""
        stages, account = Stages(), self._account(task, kernel)
        built = self._build(kernel, options, stages, account, as_it_leaves=True)
        if isinstance(built, Evaluation):
            return Verification(evaluation=built, note="the winner did not build again")
        baseline = self.baseline(task, options)
        timings: list[WorkloadTiming] = []
        controls: list[Interval] = []
        results: list[Correctness] = []
        dropped, unstable = 0, ""
        for workload, base in zip(task.meta.workloads, baseline.workloads, strict=True):
            pooled = Pooled()
            for _ in range(processes):
                # Where a process's memory happens to lie makes a few per cent on a CPU: fresh for all sides.
                reference: ReferenceHost | None = None
                try:
                    with self._held(stages):
                        with stages("reference"):
                            self._forget(task, workload)
                            reference = self._reference(task, workload)
                            before = alone(reference)
                            baselines = self._with_room(reference, partial(_sides, reference, base))
                        with self._candidate(kernel, built, reference, options, stages, account) as candidate:
                            with stages("check"):
                                correctness, reason = self._check(reference, candidate, options.trials, account)
                            if reason:
                                wrong = verdicts.incorrect(reason, correctness, account, stages.seconds)
                                return Verification(evaluation=wrong, note="the winner was wrong when it was verified")
                            with stages("attribution"):
                                traced = self._traced(candidate, kernel, built)
                            with stages("timing"):
                                session = self._side_by_side(reference, baselines, candidate, options, before)
                                watched = _Watched(session, built, stages)
                                session.interleave(VERIFY_GROUPS, VERIFY_LIMIT_S, watched.take)
                            with stages("attribution"):
                                pooled.attribution = self._fair(session, kernel, base, traced or watched.found)
                        with stages("timing"):
                            slowed = _slowed(session, before)
                        results.append(_flagged(correctness, slowed))
                except CandidateFailed as failed:
                    broken = verdicts.failed(failed, kernel, built.package, account, stages.seconds)
                    return Verification(evaluation=broken, note="the winner failed when it was verified")
                finally:
                    if reference is not None:
                        reference.keep_eager_alone()
                unstable = unstable or (slowed if self.device.kind == "cpu" else "") or session.unstable
                dropped += sum(b.dropped for b in session.benches.values()) + session.throttled
                pooled.add(session)
            controls.append(timing.pooled_ratio(pooled.samples["eager"], pooled.samples["control"]))
            timings.append(pooled.timing(workload.name))
        sanitized = self._sanitize(task, kernel, built, options, stages)
        if sanitized.error:
            account["output_tail"] = sanitized.log[-4000:]
            found = verdicts.sanitized(sanitized, kernel, account, stages.seconds)
            return Verification(evaluation=found, note="the winner failed under compute-sanitizer")
        results[0] = results[0].model_copy(update={"flags": (*results[0].flags, *sanitized.notes)})
        evaluation = self._passed(account, stages, timings, results, baseline)
        control = timing.combine(controls)
        assert evaluation.speedup is not None
        win = timing.clears(evaluation.speedup.eager, control) and not unstable
        tie = "a tie: the interval does not clear 1 and the A/A control's noise"
        return Verification(
            evaluation=evaluation,
            aa=control,
            win=win,
            processes=processes,
            dropped_blocks=dropped,
            note="" if win else unstable or tie,
        )

    def _side_by_side(
        self,
        reference: ReferenceHost,
        baselines: dict[str, tuple[Host, str]],
        candidate: CandidateHost,
        options: EvaluateOptions,
        before: Session,
    ) -> Session:
        """Kernel, baselines and control, to be interleaved."""
        watch = machine.Throttle(self.where)
        return Session(reference, baselines, candidate, options.run_timeout_s, watch=watch, before=before)

    def _sanitize(
        self, task: Task, kernel: Kernel, built: Built, options: EvaluateOptions, stages: Stages
    ) -> sanitizer.Findings:
        """compute-sanitizer over one call, on the first workload; on the CPU there is none."""
        if self.device.kind != "cuda":
            return sanitizer.Findings()
        with self._held(stages), stages("sanitizer"):
            reference = self._reference(task, task.meta.workloads[0])
            reference.make_trials(_seeds(), [NATURAL] * SETS, perturb=True)
            roomy = free_bytes(self.where) > self.device.memory_bytes // 2
            found = sanitizer.run(kernel, built, reference, options.run_timeout_s, side_by_side=roomy)
        machine.prove_usable(self.where)
        return found

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
            self.profilers.ready(request.metric_set, settle=True)
            with self._held(stages), machine.nvtx_range("profile"):
                reference = self._reference(request.task, request.task.meta.workloads[0])
                reference.make_trials(_seeds(), [NATURAL] * SETS, perturb=True)
                profile = profiler.with_ncu(profile, request, built, reference, self.profilers)
                machine.prove_usable(self.where)
        return profile.model_copy(update={"seconds": round(time.monotonic() - started, 3)})

    # -- processes ---------------------------------------------------------------------------------------------

    def _reference(self, task: Task, workload: Workload) -> ReferenceHost:
        """The reference's process for a workload: the one at hand, or a new one in place of the oldest."""
        key = (task.id, workload.name)
        if (at_hand := self.references.get(key)) and not at_hand.alive:
            self._forget(task, workload)
        found = self.references.pop(key, None)
        if found is None:
            found = self._with_room(None, lambda: ReferenceHost(task, workload, self.where, *self._inductor()))
        self.references[key] = found
        budget = int(self.device.memory_bytes * REFERENCES_SHARE)
        while len(self.references) > MOST_REFERENCES or self._held_bytes() > max(budget, found.held_bytes):
            self.references.pop(next(iter(self.references))).close()
        return found

    def _held_bytes(self) -> int:
        return sum(reference.held_bytes for reference in self.references.values())

    def _with_room(self, kept: ReferenceHost | None, start: Callable[[], T]) -> T:
        """Starts a process; where memory is short, without the references of other tasks than `kept`."""
        try:
            return start()
        except NoRoomError:
            self._close_others(kept)
            return start()

    def _close_others(self, kept: ReferenceHost | None) -> None:
        self._stop_waiting()
        for key, reference in list(self.references.items()):
            if reference is not kept:
                self.references.pop(key).close()

    @contextlib.contextmanager
    def _held(self, stages: Stages) -> Iterator[None]:
        """Holds the device. While somebody else has it, memory that it may need is given back."""
        with contextlib.ExitStack() as stack:
            with stages("wait for device"):
                stack.enter_context(lease(self.leased_as, self._make_room))
            yield

    def _make_room(self) -> None:
        if self.device.kind == "cuda" and free_bytes(self.where) < ROOM_SHARE * self.device.memory_bytes:
            self._close_others(None)

    def _eager_alone(self, reference: ReferenceHost) -> Session:
        """Eager's times while no candidate lives, measured now or a short while ago."""
        now = time.monotonic()
        if reference.alone is None or now - reference.alone[0] > ALONE_S:
            reference.alone = (now, alone(reference))
        found: Session = reference.alone[1]
        return found

    def _inductor(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Where torch.compile keeps what it has built, as a folder to write and as environment."""
        inductor = self.cache / "inductor"
        inductor.mkdir(exist_ok=True)
        return (str(inductor),), {
            "TORCHINDUCTOR_CACHE_DIR": str(inductor),
            "TRITON_CACHE_DIR": str(inductor / "triton"),
        }

    def _forget(self, task: Task, workload: Workload) -> None:
        """Ends the reference's process for a workload, if there is one."""
        if found := self.references.pop((task.id, workload.name), None):
            found.close()

    def close(self) -> None:
        """Ends the processes that are kept. Idempotent."""
        self.profilers.close()
        self._stop_waiting()
        for reference in self.references.values():
            reference.close()
        self.references = {}


def _timing(
    workload: str, mine: Bench, eager: Bench, base: WorkloadBaseline, found: Attribution | None
) -> WorkloadTiming:
    """Screening: paired with eager; torch.compile through its ratio to eager in the baseline's session."""
    over_eager = timing.paired_ratio(eager.samples_us, mine.samples_us)
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
        attribution=found,
        aids=mine.aids(),
    )


def _sides(reference: ReferenceHost, base: WorkloadBaseline) -> dict[str, tuple[Host, str]]:
    """What a kernel is verified beside, and in which process: eager, eager once more as control, torch.compile."""
    try:
        reference.renew()
        found: dict[str, tuple[Host, str]] = {
            "eager": (reference.timed, "eager"),
            "control": (Twin(reference), "eager"),
        }
        if base.compile_mode:
            found["compile"] = (reference.compiled(), f"compile:{base.compile_mode}")
        return found
    except BaseException:
        reference.keep_eager_alone()
        raise


@contextlib.contextmanager
def _memory_told(device: Device) -> Iterator[None]:
    """NoRoomError where torch has too little of a device's memory in this process."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        text = f"{device.name} has too little memory for this task: {str(error).splitlines()[0]}"
        raise NoRoomError(text, "Free the device, or use a smaller workload.") from None


def _slowed(session: Session, before: Session) -> str:
    """Compares eager beside the candidate, which is gone, with eager by itself; says so where it was slowed down.

    Behind the gate nothing but the kernel can have done it: CandidateFailed. Where calls wait on the host, whatever
    else runs on the machine can. Either way the time without the kernel counts. On the CPU no number can be relied on.
    """
    if session.eager.kind != before.eager.kind:  # the candidate's calls wait on the host: it chose the clock
        before = alone(session.reference, batches=ALONE_BATCHES, waits=True)
    slowed = session.slow_down(before)
    text = f"eager is {slowed.value:.2f} times slower beside this kernel than without it"
    if not session.reference.gpu:
        return text if slowed.value > SLOWED_CPU else ""
    if session.eager.kind == "gate" and slowed.value > SLOWED_GPU:
        raise CandidateFailed("rule", text + ".", stage="the baseline was slowed down")
    if slowed.low <= SLOWED_LITTLE:
        return ""
    session.count_without_kernel(slowed.value)
    return f"{text}: what it takes without it counts"


def _flagged(correctness: Correctness, flag: str) -> Correctness:
    """With one flag more, where there is one."""
    return correctness.model_copy(update={"flags": (*correctness.flags, flag)}) if flag else correctness


class Pooled:
    """Samples of several sessions on one workload."""

    def __init__(self) -> None:
        self.samples: dict[str, list[list[float]]] = {}
        """By bench, one list a session."""
        self.attribution: Attribution | None = None
        self.last: Session | None = None

    def add(self, session: Session) -> None:
        """Takes in the samples of a session."""
        self.last = session
        for name, bench in session.benches.items():
            self.samples.setdefault(name, []).append(bench.samples_us)

    def timing(self, workload: str) -> WorkloadTiming:
        """Of all sessions together, paired group by group."""
        assert self.last is not None
        benches, compiled = self.last.benches, self.samples.get("compile")
        kept = {n: timing.pooled_samples(v, benches[n].clock, benches[n].calls) for n, v in self.samples.items()}
        return WorkloadTiming(
            workload=workload,
            kernel=kept["kernel"],
            eager=kept["eager"],
            compile=kept.get("compile"),
            speedup=Speedup(
                eager=timing.pooled_ratio(self.samples["eager"], self.samples["kernel"]),
                compile=timing.pooled_ratio(compiled, self.samples["kernel"]) if compiled else None,
            ),
            attribution=self.attribution,
            aids=benches["kernel"].aids(),
        )


def recipe_order(exact_only: bool) -> Iterator[str]:
    """Natural inputs first, then every recipe in turn; none that makes ties where indices are compared exactly."""
    wanted = [recipe for recipe in RECIPES if not (exact_only and recipe in TIES)]
    return itertools.cycle([NATURAL, "heavy tails", *(r for r in wanted if r not in (NATURAL, "heavy tails"))])


def _plain(account: dict[str, Any]) -> dict[str, Any]:
    return account | {"seeds": tuple(account["seeds"])}


def _seeds() -> list[int]:
    return [secrets.randbits(63) for _ in range(SETS)]


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None
