"""The comparison: what is allowed, what is not, and how it is described."""

from __future__ import annotations

import pytest
import torch

from cudaforge.engine.check import compare
from cudaforge.task import Tolerance

CALIBRATED = Tolerance()


def reference(seed: int = 0, n: int = 512) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A fp32 matrix product and its float64 twin."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=generator)
    b = torch.randn(n, n, generator=generator)
    return a, b, a @ b, a.double() @ b.double()


def test_another_order_of_summation_passes() -> None:
    a, b, own, exact = reference()
    halves = a[:, :256] @ b[:256] + a[:, 256:] @ b[256:]
    assert compare("0", halves, own, exact, CALIBRATED).error is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_seen(dtype: torch.dtype) -> None:
    a, b, own, exact = reference()
    got = (a.to(dtype) @ b.to(dtype)).float()
    found = compare("0", got, own, exact, CALIBRATED)
    assert found.error is not None and found.ratio > 10


def test_tf32_rounding_of_inputs_is_seen() -> None:
    a, b, own, exact = reference()
    mask = -(1 << 13)
    cut = [(t.view(torch.int32) & mask).view(torch.float32) for t in (a, b)]
    assert compare("0", cut[0] @ cut[1], own, exact, CALIBRATED).error is not None


def test_a_kernel_more_exact_than_eager_passes() -> None:
    _, _, own, exact = reference()
    assert compare("0", exact.float(), own, exact, CALIBRATED).error is None


def test_one_wrong_element_among_many_is_seen() -> None:
    _, _, own, exact = reference()
    got = own.clone()
    got[300, 7] += 1e-2
    found = compare("out", got, own, exact, CALIBRATED)
    assert found.error is not None and found.error.mismatched == 1
    assert found.error.first[0][0] == (300, 7)


def test_tiny_outputs_must_be_right_too() -> None:
    exact = torch.softmax(torch.linspace(-60, 0, 4096, dtype=torch.float64)[None].repeat(64, 1), dim=1)
    own = exact.float()
    zeroed = torch.where(own < 1e-8, 0.0, own)
    assert compare("0", zeroed, own, exact, CALIBRATED).error is not None
    assert compare("0", own * (1 + 1e-6), own, exact, CALIBRATED).error is None


def test_cancellation_near_zero_is_forgiven_as_far_as_eager_needs_it() -> None:
    x = torch.linspace(-6, -3, 100_000)
    own = torch.nn.functional.gelu(x)
    exact = 0.5 * x.double() * (1 + torch.erf(x.double() / 2**0.5))
    assert compare("0", 0.5 * x * (1 + torch.erf(x / 2**0.5)), own, exact, CALIBRATED).error is None
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert compare("0", tanh, own, exact, CALIBRATED).error is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_match_by_position(bad: float) -> None:
    own = torch.randn(100)
    own[3] = bad
    assert compare("0", own.clone(), own, own.double(), CALIBRATED).error is None
    moved = own.clone()
    moved[3], moved[4] = 0.0, bad
    found = compare("0", moved, own, own.double(), CALIBRATED)
    assert found.error is not None and found.error.mismatched == 2


def test_integers_are_compared_exactly() -> None:
    own = torch.arange(10)
    got = own.clone()
    assert compare("0", got, own, own, CALIBRATED).error is None
    got[9] = 0
    assert compare("0", got, own, own, CALIBRATED).error is not None


def test_explicit_and_kernelbench_tolerances() -> None:
    own = torch.ones(10)
    got = own + 5e-4
    assert compare("0", got, own, own.double(), Tolerance(mode="explicit", atol=1e-3)).error is None
    assert compare("0", got, own, own.double(), Tolerance(mode="explicit", atol=1e-4)).error is not None
    assert compare("0", got, own, own.double(), Tolerance(mode="kernelbench")).error is not None
    assert compare("0", own + 1e-4, own, own.double(), Tolerance(mode="kernelbench")).error is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w * 2, "constant factor 2"),
        (lambda w: w + 3, "off by the constant 3"),
        (lambda w: w.T.contiguous(), "transposed"),
        (torch.zeros_like, "all zeros"),
        (lambda w: torch.cat([w[:60], w[60:] * 0 + 9]), ">= 60 of dimension 0"),
        (lambda w: w + 5 * (torch.arange(64) % 4 == 0), "every 4th"),
        (
            lambda w: torch.where(torch.arange(64)[:, None] == 5, float("nan"), w),
            "only at indices 5 to 5 of dimension 0",
        ),
    ],
)
def test_patterns_are_named(change: object, words: str) -> None:
    want = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    got = change(want)  # type: ignore[operator]
    found = compare("0", got, want, want.double(), CALIBRATED)
    assert found.error is not None and words in found.error.pattern


def test_a_lone_element_near_zero_is_not_held_to_its_own_luck() -> None:
    generator = torch.Generator().manual_seed(3)
    exact = torch.randn(100_000, generator=generator, dtype=torch.float64)
    exact[0] = 1e-12
    own, got = (exact + 1e-7 * torch.randn(100_000, generator=generator) for _ in range(2))
    own[0] = exact[0]  # right to the last bit, as may happen to one element
    got[0] = 1e-7
    assert compare("0", got.float(), own.float(), exact, CALIBRATED).error is None
    got[0] = 1e-5
    assert compare("0", got.float(), own.float(), exact, CALIBRATED).error is not None


@pytest.mark.parametrize(
    ("times", "share", "passes"), [(1.8, 5e-5, True), (1.8, 5e-4, False), (3.0, 5e-5, False), (0.9, 1.0, True)]
)
def test_a_few_stragglers_are_forgiven_and_neither_many_nor_far_ones(times: float, share: float, passes: bool) -> None:
    exact = torch.full((1000, 1000), 1.0, dtype=torch.float64)
    own = exact.float()  # exact: what is allowed is the floor of 3e-5
    got = own.clone().flatten()
    got[: int(share * got.numel())] += times * 3e-5
    found = compare("0", got.view(1000, 1000), own, exact, CALIBRATED)
    assert (found.error is None) == passes and (found.ratio <= 1) == passes


def test_small_outputs_have_no_stragglers() -> None:
    exact = torch.ones(1000, dtype=torch.float64)
    got = exact.float()
    got[7] += 5e-5
    assert compare("0", got, exact.float(), exact, CALIBRATED).error is not None


def test_an_honest_sum_may_be_off_by_roundings_of_the_typical_size_where_pytorch_is_exact() -> None:
    """Sums of small integers are exact in PyTorch; Welford's mean is not, and shows where x is near the mean."""
    half = torch.randint(-3, 4, (64, 1024), generator=torch.Generator().manual_seed(3)).double()
    x = torch.cat([half, -half], dim=1) + 1
    x[:, 0] += 1  # a mean of 1 + 1/2048, hardly more than many elements
    exact = x - x.mean(dim=1, keepdim=True)
    expected = exact.float()
    got = (x - x.mean(dim=1, keepdim=True) * (1 + 1e-7)).float()
    assert float(((got - exact) / exact).abs().max()) > 1e-4, "far off, relative to elements near the mean"
    assert compare("y", got, expected, exact, Tolerance()).error is None
    dropped = torch.where(exact.abs() < 1e-2, 0.0, expected)
    assert compare("y", dropped, expected, exact, Tolerance()).error is not None


def test_a_half_precision_product_that_was_not_computed_is_too_coarse_as_a_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(*shape, generator=generator).bfloat16() for shape in ((256, 4096), (4096, 256)))
    exact = a.double() @ b.double()
    expected = exact.bfloat16()
    by_means = (a.double().mean(dim=1, keepdim=True) * b.double().mean(dim=0, keepdim=True) * 4096).bfloat16()
    found = compare("y", by_means, expected, exact, Tolerance())
    assert found.error is not None and found.ratio > 1
    assert "as a whole too coarse: 2.8 times" in found.error.pattern and found.error.mismatched > 0
    # Rounded twice, as through a bfloat16 scratch buffer of one third and two thirds of the sum.
    third = (a.double()[:, :1365] @ b.double()[:1365]).bfloat16()
    rest = (a.double()[:, 1365:] @ b.double()[1365:]).bfloat16()
    assert compare("y", third + rest, expected, exact, Tolerance()).error is None
    assert compare("y", torch.relu(expected), torch.relu(expected), torch.relu(exact), Tolerance()).error is None
