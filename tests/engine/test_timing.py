"""Medians and ratios with honest intervals."""

from __future__ import annotations

import itertools
import random

import pytest

from cudaforge.engine import timing
from cudaforge.engine.timing import (
    clears,
    combine,
    median_interval,
    paired_ratio,
    pooled_ratio,
    pooled_samples,
    product,
    settled,
    unpaired_ratio,
)
from cudaforge.evaluation import Interval


def test_the_interval_of_the_median_covers_it_about_95_times_in_100() -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(400):
        _, low, high = median_interval([rng.gauss(10, 1) for _ in range(40)])
        hits += low <= 10 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_pairing_removes_a_drift_that_hits_both() -> None:
    rng = random.Random(2)
    drift = [1 + i / 50 for i in range(60)]
    slow = [20 * d * rng.uniform(0.99, 1.01) for d in drift]
    fast = [10 * d * rng.uniform(0.99, 1.01) for d in drift]
    found = paired_ratio(slow, fast)
    assert found.value == pytest.approx(2, rel=0.01)
    assert found.high - found.low < 0.03
    assert unpaired_ratio(slow, fast).high - unpaired_ratio(slow, fast).low > 0.1


def test_the_same_thing_against_itself_is_a_tie() -> None:
    rng = random.Random(3)
    a, b = ([rng.gauss(10, 0.3) for _ in range(40)] for _ in range(2))
    found = paired_ratio(a, b)
    assert found.low < 1 < found.high


def _session(rng: random.Random, process: float) -> list[float]:
    """14 batches of 10 us in a process that is by its own factor slower than others."""
    return [10 * process * rng.gauss(1, 0.003) for _ in range(14)]


def _flat(sessions: list[list[float]]) -> list[float]:
    return [*itertools.chain(*sessions)]


def test_the_interval_reaches_over_the_sessions_where_processes_differ() -> None:
    rng = random.Random(4)
    eager = [_session(rng, 1.0) for _ in range(3)]
    kernel = [_session(rng, process) for process in (1.0, 1.0, 0.93)]
    flat = paired_ratio(_flat(eager), _flat(kernel))
    pooled = pooled_ratio(eager, kernel)
    assert flat.high < 1.01 < 1.07 < pooled.high
    assert pooled.value == pytest.approx(flat.value)
    times = pooled_samples(kernel, "a clock", 12)
    assert times.sessions == (14, 14, 14) and times.samples_us[14:28] == tuple(round(us, 4) for us in kernel[1])
    assert times.low_us < 9.4 < 9.9 < times.median_us <= times.high_us
    alike = pooled_ratio(eager, [_session(rng, 0.5) for _ in range(3)])
    assert alike.value == pytest.approx(2, rel=0.003) and alike.high - alike.low < 0.02


def test_processes_that_differ_make_no_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same thing in processes of two kinds, 7 % apart, as they are for kernels of 3 us on an H100."""
    monkeypatch.setattr(timing, "RESAMPLES", 200)
    rng = random.Random(5)
    wins = {"batches alone": 0, "sessions and batches": 0}
    for _ in range(100):
        eager, kernel, control = ([_session(rng, rng.choice([1, 1.07])) for _ in range(3)] for _ in range(3))
        flat = [paired_ratio(_flat(eager), _flat(other)) for other in (kernel, control)]
        wins["batches alone"] += clears(*flat)
        wins["sessions and batches"] += clears(pooled_ratio(eager, kernel), pooled_ratio(eager, control))
    assert wins["batches alone"] >= 5, "else this test shows nothing"
    assert wins["sessions and batches"] <= 1


def test_settled_needs_a_narrow_interval_and_ten_samples() -> None:
    assert settled([10.0] * 10)
    assert not settled([10.0] * 9)
    assert not settled([8.0, 12.0] * 20)


def test_ratios_multiply_and_combine() -> None:
    a, b = Interval(value=2, low=1.9, high=2.1), Interval(value=3, low=2.9, high=3.1)
    both = product(a, b)
    assert both.value == pytest.approx(6) and both.low < 5.8 and both.high > 6.2
    mean = combine([Interval(value=2, low=2, high=2), Interval(value=8, low=8, high=8)])
    assert mean.value == pytest.approx(4)
