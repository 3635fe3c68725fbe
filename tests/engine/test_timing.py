"""Medians and ratios with honest intervals."""

from __future__ import annotations

import random

import pytest

from cudaforge.engine.timing import combine, median_interval, paired_ratio, product, settled, unpaired_ratio
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
