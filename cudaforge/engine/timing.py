"""Statistics of times: medians with intervals, ratios with intervals. Pure Python, no torch, no numpy."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

from cudaforge.evaluation import Interval, Samples, Speedup

RESAMPLES = 1000


def median_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval by order statistics (no assumption about the distribution)."""
    ordered = sorted(samples)
    n = len(ordered)
    middle = statistics.median(ordered)
    if n < 6:
        return middle, ordered[0], ordered[-1]
    half = 1.96 * math.sqrt(n) / 2
    low = max(math.floor(n / 2 - half), 0)
    high = min(math.ceil(n / 2 + half), n - 1)
    return middle, ordered[low], ordered[high]


def samples_of(samples_us: Sequence[float], clock: str, calls: int = 1) -> Samples:
    """Raw times as they are kept."""
    middle, low, high = median_interval(samples_us)
    return Samples(
        median_us=middle,
        low_us=low,
        high_us=high,
        samples_us=tuple(round(s, 4) for s in samples_us),
        clock=clock,
        calls_per_sample=calls,
    )


def pooled_samples(sessions_us: Sequence[Sequence[float]], clock: str, calls: int) -> Samples:
    """Raw times of several sessions of fresh processes; the median's interval is bootstrapped as `pooled_ratio` is."""
    together = samples_of([*itertools.chain(*sessions_us)], clock, calls)
    if len(sessions_us) < 2:
        return together
    spread = bootstrap(lambda rng: statistics.median(_resample(sessions_us, rng)), together.median_us)
    counts = tuple(len(samples) for samples in sessions_us)
    return together.model_copy(update={"low_us": spread.low, "high_us": spread.high, "sessions": counts})


def settled(samples_us: Sequence[float], share: float = 0.01) -> bool:
    """Whether the 95 % interval of the median lies inside +-`share`."""
    if len(samples_us) < 10:
        return False
    middle, low, high = median_interval(samples_us)
    return high - middle <= share * middle and middle - low <= share * middle


def bootstrap(statistic: Callable[[random.Random], float], value: float, seed: int = 0) -> Interval:
    """95 % percentile interval of a statistic that resamples with the given generator."""
    rng = random.Random(seed)
    draws = sorted(statistic(rng) for _ in range(RESAMPLES))
    low, high = draws[int(0.025 * RESAMPLES)], draws[int(0.975 * RESAMPLES) - 1]
    return Interval(value=value, low=min(low, value), high=max(high, value))


def paired_ratio(baseline_us: Sequence[float], kernel_us: Sequence[float]) -> Interval:
    """Speedup from interleaved blocks: the i-th of both were measured side by side. Median log-ratio, bootstrapped."""
    return pooled_ratio([baseline_us], [kernel_us])


def pooled_ratio(baseline_us: Sequence[Sequence[float]], kernel_us: Sequence[Sequence[float]]) -> Interval:
    """Speedup from several sessions of fresh processes, each of interleaved blocks: median log-ratio of all blocks.

    Bootstrapped in two stages, sessions and then blocks of each: blocks of one session share its processes, and how
    those differ from others (where their memory lies, say) no number of blocks can tell. So the interval reaches over
    the medians of all sessions of a few.
    """
    sessions = [
        [math.log(b / k) for b, k in zip(*pair, strict=True)] for pair in zip(baseline_us, kernel_us, strict=True)
    ]
    value = math.exp(statistics.median(itertools.chain(*sessions)))
    return bootstrap(lambda rng: math.exp(statistics.median(_resample(sessions, rng))), value)


def _resample(sessions: Sequence[Sequence[float]], rng: random.Random) -> Iterator[float]:
    """Sessions drawn with replacement, and of each its samples likewise."""
    for drawn in rng.choices(sessions, k=len(sessions)):
        yield from rng.choices(drawn, k=len(drawn))


def clears(speedup: Interval, control: Interval) -> bool:
    """Whether a speedup is a win: above 1, and above what the baseline seems to gain over itself, either way round."""
    return speedup.low > max(1.0, control.high, 1 / control.low)


def unpaired_ratio(baseline_us: Sequence[float], kernel_us: Sequence[float]) -> Interval:
    """Speedup from samples of two sessions: ratio of medians, each resampled by itself."""
    value = statistics.median(baseline_us) / statistics.median(kernel_us)

    def draw(rng: random.Random) -> float:
        top = statistics.median(rng.choices(baseline_us, k=len(baseline_us)))
        return top / statistics.median(rng.choices(kernel_us, k=len(kernel_us)))

    return bootstrap(draw, value)


def product(a: Interval, b: Interval) -> Interval:
    """Product of two independent ratios; relative widths add in quadrature on the log scale."""
    value = a.value * b.value
    down = math.hypot(math.log(a.value / a.low), math.log(b.value / b.low))
    up = math.hypot(math.log(a.high / a.value), math.log(b.high / b.value))
    return Interval(value=value, low=value * math.exp(-down), high=value * math.exp(up))


def combine(intervals: Sequence[Interval]) -> Interval:
    """Geometric mean over workloads with its interval."""
    n = len(intervals)
    value = math.exp(sum(math.log(i.value) for i in intervals) / n)
    down = math.sqrt(sum(math.log(i.value / i.low) ** 2 for i in intervals)) / n
    up = math.sqrt(sum(math.log(i.high / i.value) ** 2 for i in intervals)) / n
    return Interval(value=value, low=value * math.exp(-down), high=value * math.exp(up))


def combine_speedups(speedups: Sequence[Speedup]) -> Speedup:
    """Geometric mean over workloads; torch.compile only where every workload has it."""
    compiled = [s.compile for s in speedups if s.compile]
    return Speedup(
        eager=combine([s.eager for s in speedups]),
        compile=combine(compiled) if len(compiled) == len(speedups) else None,
    )
