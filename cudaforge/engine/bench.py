"""Blocks of calls of the candidate and the baselines, interleaved on one device.

On the CPU the supervisor's own clock stands around a block of N calls (the message there and back is a few tens of
microseconds against blocks of milliseconds). On a GPU each call is timed by CUDA events: cold L2, queued ahead.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cudaforge.engine import timing
from cudaforge.engine.hosts import CandidateHost, ReferenceHost
from cudaforge.evaluation import Samples

CLOCK_CPU = "supervisor's clock around blocks of calls, rotating inputs"
CLOCK_CUDA = "cuda events, cold L2, queued ahead, rotating inputs"
BLOCK_S = 0.02
"""A CPU block lasts at least this long, so that the message around it is lost in it."""
SETTLE_S = 0.012
"""Pause between blocks of different processes: an OpenMP pool spins for some milliseconds after its last parallel
region, and takes the cores from the next block (seen as A/A ratios far from 1 with 3 ms, gone with 10). Making it spin
less is no way out: eager, with many short regions, then takes twice as long."""
GPU_CALLS = 10
TRIES = 2
"""A CPU block in which the process lost a core to somebody else is measured again, so often in all; the last counts."""


@dataclass
class Bench:
    """One thing that is timed in blocks."""

    device: str
    run: Callable[[int], list[float]]
    preemptions: Callable[[], int]
    calls: int = 0
    samples_us: list[float] = field(default_factory=list)
    """CPU: mean of each block. GPU: every call."""
    blocks_us: list[float] = field(default_factory=list)
    """Median of each block."""
    spent_s: float = 0.0
    dropped: int = 0
    """CPU blocks that were measured again."""

    def block(self) -> float:
        """Runs one block, keeps its samples, returns its microseconds a call."""
        if not self.calls:
            self._size()
        if self.device == "cpu":
            elapsed = self._undisturbed()
            samples = [elapsed / self.calls * 1e6]
        else:
            samples = self.run(self.calls)
            elapsed = sum(samples) / 1e6
        self.spent_s += elapsed
        self.samples_us += samples
        self.blocks_us.append(statistics.median(samples))
        return self.blocks_us[-1]

    def _undisturbed(self) -> float:
        """Seconds of a CPU block in which nobody else took a core from the process; of the last try where all were
        disturbed. On two cores one busy neighbour makes an OpenMP kernel ten times slower, and eager with it or not."""
        for attempt in range(TRIES):
            time.sleep(SETTLE_S)
            self.run(1)  # wakes the threads and fills the caches that the other process has used; not timed
            before = self.preemptions()
            started = time.perf_counter()
            self.run(self.calls)
            elapsed = time.perf_counter() - started
            if self.preemptions() - before <= 1:
                break
            self.dropped += attempt < TRIES - 1
        return elapsed

    def _size(self) -> None:
        """Chooses the calls of a block; what is measured for it does not count."""
        if self.device != "cpu":
            self.calls = GPU_CALLS
            return
        times = []
        for _ in range(3):
            started = time.perf_counter()
            self.run(1)
            times.append(time.perf_counter() - started)
        once = min(times)
        self.calls = min(max(round(BLOCK_S / once + 0.5), 1), 10_000)

    @property
    def samples(self) -> Samples:
        """What is stored."""
        clock = CLOCK_CPU if self.device == "cpu" else CLOCK_CUDA
        return timing.samples_of(self.samples_us, clock, self.calls if self.device == "cpu" else 1)


def candidate_bench(candidate: CandidateHost) -> Bench:
    """The candidate, prepared."""
    candidate.prepare()
    return Bench(candidate.device, candidate.block, candidate.child.preemptions)


def baseline_bench(reference: ReferenceHost, what: str) -> Bench:
    """`eager` or `compile:MODE`, prepared."""
    reference.prepare(what)
    return Bench(reference.device, lambda calls: reference.block(what, calls), reference.child.preemptions)


def screen(kernel: Bench, eager: Bench, budget_s: float) -> None:
    """Interleaved blocks until the kernel's median is known to +-1 %, or `budget_s` of its own time is spent.

    At least ten blocks, unless one call alone is longer than the budget; the baseline may cost four budgets.
    """
    rng = random.Random(0)
    while True:
        for bench in rng.sample([kernel, eager], 2):
            bench.block()
        blocks = len(kernel.blocks_us)
        over = kernel.spent_s > budget_s or eager.spent_s > 4 * budget_s
        if blocks >= 4 and (over or blocks >= 200) and (blocks >= 10 or eager.spent_s + kernel.spent_s > 12 * budget_s):
            return
        if blocks >= 10 and timing.settled(kernel.samples_us) and timing.settled(eager.samples_us):
            return


def interleave(benches: list[Bench], groups: int, rng: random.Random, limit_s: float) -> None:
    """`groups` groups of one block each in random order, every second group mirrored: a drift hits all alike."""
    started = time.monotonic()
    order: list[Bench] = []
    for group in range(groups):
        order = order[::-1] if group % 2 else rng.sample(benches, len(benches))
        for bench in order:
            bench.block()
        if time.monotonic() - started > limit_s and group >= 3:
            return
