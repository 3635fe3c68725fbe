"""Benches side by side: the kernel and its baselines on the same fresh inputs, group by group, outputs compared."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from cudaforge.engine import bench, check, machine, timing, verdicts
from cudaforge.engine.bench import Bench, GateBench, HostBench
from cudaforge.engine.hosts import (
    CandidateFailed,
    CandidateHost,
    Host,
    ReferenceHost,
    TaskBroken,
    first_errors,
    nbytes,
)
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import Interval

MOST_EXTRA = 10
"""How many times longer than it need be a baseline's batch may become to match the kernel's calls."""
SCREEN_LIMIT_S = 4.0
"""Wall time of a screening after which ten groups are enough."""
STRICT_FIRST, STRICT_S = 10, 0.1
"""So many groups are all compared with float64, too, where one such comparison takes no longer (seconds)."""
STRICT_SHARE = {"later": 0.25, "slow": 0.5}
"""Of the groups after them, and of those where it takes longer: how many, chosen secretly."""
LOOK_AFTER = range(2, 9)
"""Groups after one of which a kernel is watched (attribution.py)."""
ENOUGH_TO_JUDGE = 8
"""Batches after which a kernel that mostly shows signs of foul play is not timed any further."""
MOST_GROUPS = 400
"""Groups at most, those that do not count included."""
COMPARED, COMPARED_BYTES = 4, 64 << 20
"""Calls of a group whose outputs are compared with eager's on the same inputs, chosen secretly, and bytes of them."""


class Session:
    """Benches that are timed side by side.

    All use one clock: where one of them waits for the GPU on the host, or `waits` says so, all are timed around N and
    2N calls.
    """

    def __init__(
        self,
        reference: ReferenceHost,
        baselines: dict[str, tuple[Host, str]],
        candidate: CandidateHost | None = None,
        timeout_s: float = 120.0,
        watch: machine.Throttle | None = None,
        before: Session | None = None,
        waits: bool = False,
    ) -> None:
        self.watch = watch
        self.throttled, self.groups = 0, 0
        """Groups that were dropped since the GPU was being slowed down, and all that were measured."""
        self.reference = reference
        asked = dict(baselines)
        if candidate is not None:
            asked["kernel"] = (candidate, "kernel")
        for host, _ in asked.values():
            host.child.stop()  # nothing of a kernel runs while the clock's constant and the baselines' calls are found
        # The constant is that of eager's process; on a GPU eager is as large as it was without a candidate, too.
        self.constant_s: float = before.constant_s if before else bench.clock_constant(reference)
        known: dict[str, Bench] = before.benches if before and reference.gpu else {}
        self.benches: dict[str, Bench] = {
            name: bench.make(host, what, reference, self.constant_s, timeout_s, waits=waits, known=known.get(name))
            for name, (host, what) in asked.items()
        }
        if any(b.kind == "host" for b in self.benches.values()):
            for name, (host, what) in asked.items():
                if self.benches[name].kind == "gate":
                    self.benches[name] = bench.make(host, what, reference, self.constant_s, timeout_s, waits=True)
        self._arrange_alike()
        for b in self.benches.values():
            if isinstance(b, GateBench) and before:
                b.usual_late_s = before.late_s() or b.usual_late_s
        kernel, eager = self.benches.get("kernel"), self.benches.get("eager")
        if isinstance(kernel, HostBench) and isinstance(eager, HostBench):
            kernel.peer = eager
        self.rng = random.SystemRandom()
        self.reasons = ""
        self.strict_s: list[float] = []
        """What comparisons with float64 have taken."""
        self.share = check.ALIKE
        """How far a timed output may be from eager's, loosely; more where eager itself is far from float64."""
        if candidate is not None:
            for i in range(len(reference.output_specs)):
                expected, exact = (reference.buffers[name].tensor(i) for name in ("expected0", "exact0"))
                self.share = max(self.share, 4 * check.own_error(expected, exact))

    def _arrange_alike(self) -> None:
        """Lets every process know all the input sets, since a baseline may be called on any of the kernel's.

        Eager and its control make equally many calls. On a GPU baselines make as many as the kernel does, where that
        does not take long.
        """
        sides = [self.benches[name] for name in ("eager", "control") if name in self.benches]
        equal = max((side.calls for side in sides), default=0)
        for side in sides:
            side.calls = equal
        for b in self.benches.values():
            wanted = self.kernel.calls if "kernel" in self.benches and b.candidate is None else 0
            if b.kind == "gate" and b.calls < wanted <= MOST_EXTRA * b.calls:
                b.calls = wanted
        most = max(b.sets for b in self.benches.values())
        for b in self.benches.values():
            if b.candidate is None:
                b.arrange(most, held=b.calls)
                if isinstance(b, GateBench) and b.kind == "gate" and not b.can_queue(b.calls):
                    b.calls = max(b.calls // 4, 1)
                b.host.child.stop()

    @property
    def unstable(self) -> str:
        """Why the numbers cannot be relied on: too many groups were dropped. Empty where they can."""
        if self.throttled * 4 > self.groups:
            text = f"unstable: {self.throttled} of {self.groups} groups were dropped"
            return f"{text}, the GPU being slowed down ({self.reasons})"
        return ""

    @property
    def kernel(self) -> Bench:
        """The candidate's bench."""
        return self.benches["kernel"]

    @property
    def eager(self) -> Bench:
        """The baseline's."""
        return self.benches["eager"]

    def group(self, names: list[str]) -> bool:
        """Fresh inputs, then one batch of each bench in order; outputs of timed calls are compared with eager's, and
        one of most groups with float64, as in a check. Raises CandidateFailed.

        Returns whether the group counts. One does not, for none of its benches, where the GPU was slowed down, the
        kernel's batch showed a sign of foul play, or one was too short: then the following ones are longer.
        """
        order = [self.benches[name] for name in names]
        sets = max(b.sets for b in order)
        self.reference.fill(sets)
        kernel = self.benches.get("kernel") if "kernel" in names else None
        used = kernel.sets if kernel else sets
        # A baseline of fewer calls runs on some of the kernel's input sets, and nobody knows on which.
        orders = {name: self._some(b.sets, used) for name, b in zip(names, order, strict=True)}
        picks, strict = self._picks(orders) if kernel else (set(), -1)
        before = self.watch.reasons() if self.watch else ""
        for name, b in zip(names, order, strict=True):
            b.batch(orders[name], picks)
        self.groups += 1
        slowed = before or (self.watch.reasons() if self.watch else "")
        if slowed:
            self.throttled += 1
            self.reasons = slowed
        if kernel:
            assert kernel.generation == self.reference.generation, "what the kernel ran on is gone"
            if "eager" in names and kernel.generation == self.eager.generation:
                self._compare()
            else:  # the kernel's batch was measured again, on other inputs, after eager's
                for pick in kernel.read:
                    self._compare_strictly(pick)
            if self._strictly():
                self._compare_strictly(strict)
            host = kernel.candidate
            if host and not host.kept(set(kernel.read)):
                raise CandidateFailed("rule", "a timed call changed its inputs in place.", stage="inputs changed")
        short = [b for b in order if b.too_short and (b is kernel or b.kind == "cpu")]
        if short:
            for b in short:
                b.grow()
            self._arrange_alike()
            for b in self.benches.values():
                b.forget()
            return False
        if slowed or (kernel and kernel.foul):
            for b in order:
                b.samples_us.pop()
            return False
        return True

    def _strictly(self) -> bool:
        """Whether the present group's output is compared with float64, too. Nobody can know of which it is."""
        slow = bool(self.strict_s) and statistics.median(self.strict_s) > STRICT_S
        if self.groups <= STRICT_FIRST and not slow:
            return True
        return self.rng.random() < STRICT_SHARE["slow" if slow else "later"]

    def slow_down(self, before: Session) -> Interval:
        """How many times slower eager is here than it was by itself."""
        return timing.unpaired_ratio(self.eager.samples_us, before.eager.samples_us)

    def count_without_kernel(self, slowed: float) -> None:
        """Lets all baselines be as many times faster: what slows them down gains nothing."""
        for b in self.benches.values():
            if b.candidate is None:
                b.samples_us[:] = [sample / slowed for sample in b.samples_us]

    def late_s(self) -> float:
        """What the supervisor's own small kernel takes right after these benches' batches; 0 where nobody knows."""
        samples = [s for b in self.benches.values() if isinstance(b, GateBench) for s in b.late_s]
        return statistics.median(samples) if samples else 0.0

    def _some(self, count: int, of: int) -> list[int]:
        """Input sets in order: some of them, the last always: what is put off to the next call shows there."""
        last = max(count, of) - 1
        return [*sorted(self.rng.sample(range(last), count - 1)), last]

    def _picks(self, orders: dict[str, list[int]]) -> tuple[set[int], int]:
        """Input sets whose outputs are compared with eager's, and the one that is compared strictly, too."""
        own = orders["kernel"]
        both = sorted(set(own) & set(orders.get("eager", own)))
        few = max(min(COMPARED, COMPARED_BYTES // max(nbytes(self.reference.output_specs), 1), len(both)), 1)
        strict = self.rng.choice(own)
        return {*self.rng.sample(both, few), both[-1], strict}, strict

    def _compare(self) -> None:
        for pick in set(self.kernel.read) & set(self.eager.read):
            for mine, theirs in zip(self.kernel.read[pick], self.eager.read[pick], strict=True):
                if not check.alike(mine, theirs, self.share):
                    self._prove_eager(pick)
                    raise _wrong("the output of a timed call is not that of its inputs.")

    def _prove_eager(self, pick: int) -> None:
        """TaskBroken where eager's own output of a timed call is not what the reference expects of it: on the CPU they
        are two processes, and a Model may draw numbers in a way that cannot be repeated."""
        self.reference.expect(pick)
        for i, theirs in enumerate(self.eager.read[pick]):
            if not check.alike(theirs, self.reference.buffers["expected0"].tensor(i), self.share):
                text = "eager's output of a timed call is not what the reference makes of its inputs"
                raise TaskBroken(text, unsteady=True)

    def _compare_strictly(self, pick: int) -> None:
        host = self.kernel.host
        assert isinstance(host, CandidateHost)
        started = time.monotonic()
        self.reference.expect(pick)
        errors = first_errors(host.compare_with(0, self.kernel.read[pick]))
        self.strict_s.append(time.monotonic() - started)
        if errors:
            raise _wrong(verdicts.describe_errors(errors))

    def screen(self, budget_s: float, look: Callable[[], None] = lambda: None) -> None:
        """Groups of kernel and eager until both medians are known to +-1 %, or `budget_s` of kernel time is spent.

        At least ten groups, unless one call alone is longer than the budget; the baseline may cost four budgets. `look`
        is called somewhere among them: nobody knows when.
        """
        kernel, eager = self.kernel, self.eager
        when = self.rng.choice(LOOK_AFTER)
        started = time.monotonic()
        for _ in range(MOST_GROUPS):
            counts = self.group(self.rng.sample(["kernel", "eager"], 2))
            done = len(kernel.samples_us)
            if not counts and kernel.batches >= ENOUGH_TO_JUDGE:
                kernel.judge()
            if counts and done == when:
                look()
                when = 0
            over = kernel.spent_s > budget_s or eager.spent_s > 4 * budget_s
            slow = eager.spent_s + kernel.spent_s > 12 * budget_s
            over = over or time.monotonic() - started > SCREEN_LIMIT_S
            if done >= 4 and (over or done >= 200) and (done >= 10 or slow):
                break
            if done >= 10 and timing.settled(kernel.samples_us) and timing.settled(eager.samples_us):
                break
        self._judge()
        if when:
            look()

    def _judge(self) -> None:
        if not self.kernel.samples_us:
            why = f"the GPU is slowed down all the time ({self.reasons})" if self.reasons else "all batches were short"
            raise EvaluatorError(f"{why}: nothing can be timed.")
        self.kernel.judge()

    def interleave(self, groups: int, limit_s: float, look: Callable[[], None] = lambda: None) -> None:
        """`groups` groups of one batch each in random order, every second group mirrored: a drift hits all alike.
        `look`: as in `screen`."""
        started, when = time.monotonic(), self.rng.choice(LOOK_AFTER)
        names: list[str] = []
        for group in range(MOST_GROUPS):
            names = names[::-1] if group % 2 else self.rng.sample(list(self.benches), len(self.benches))
            self.group(names)
            done = len(next(iter(self.benches.values())).samples_us) + self.throttled
            if done == when:
                look()
                when = 0
            if done >= groups or (time.monotonic() - started > limit_s and group >= 3):
                break
        if "kernel" in self.benches:
            self._judge()
            if when:
                look()


def _wrong(what: str) -> CandidateFailed:
    return CandidateFailed("rule", f"right when checked, wrong when timed: {what}", stage="timed calls are wrong")


def alone(reference: ReferenceHost, what: str = "eager", batches: int = 5, *, waits: bool = False) -> Session:
    """A baseline by itself, while no candidate lives: what it takes, and what the GPU does when it is idle. `waits`: by
    the clock for calls that wait on the host."""
    session = Session(reference, {what: (reference.timed, what)}, waits=waits)
    while len(session.benches[what].samples_us) < batches:
        session.group([what])
    return session
