"""Recipes: values stay in the support, structure is left alone, and each shortcut shows under one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cudaforge.engine.check import compare
from cudaforge.engine.recipes import FEWEST, NATURAL, RECIPES, Support, apply, observe
from cudaforge.task import Tolerance

Draw = Callable[[torch.Generator], torch.Tensor]
CHANGING = [recipe for recipe in RECIPES if recipe != NATURAL]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(draw: Draw, count: int = 3) -> list[torch.Tensor]:
    return [draw(seeded(seed)) for seed in range(count)]


def shown(draw: Draw) -> Support:
    return observe(draws(draw))


def rand(*shape: int) -> Draw:
    return lambda g: torch.rand(shape, generator=g)


def randn(*shape: int) -> Draw:
    return lambda g: torch.randn(shape, generator=g)


# The kinds of range that inputs have.
SUPPORTS: dict[str, Draw] = {
    "unit": rand(32, 200),
    "normal": randn(32, 200),
    "tiny": lambda g: torch.randn(32, 200, generator=g) * 1e-6,
    "negative": lambda g: -torch.rand(32, 200, generator=g) - 0.01,
    "far from zero": lambda g: torch.rand(32, 200, generator=g) + 1000,
    "skewed": lambda g: torch.randn(32, 200, generator=g).mul(2).exp(),
    "short rows": rand(16, 20, 5),
    "vector": randn(300),
    "wide": lambda g: torch.randn(32, 200, generator=g) * 30_000,
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", SUPPORTS)
def test_values_stay_in_the_range_that_was_seen(kind: str, recipe: str, dtype: torch.dtype) -> None:
    def draw(generator: torch.Generator) -> torch.Tensor:
        info = torch.finfo(dtype)
        return SUPPORTS[kind](generator).double().clamp(info.min, info.max).to(dtype)

    support = observe(draws(draw))
    assert support.fixed == "" or dtype in (torch.float16, torch.bfloat16)  # few values are left of 1000 to 1001
    value = draw(seeded(9))
    before = value.clone()
    out = apply(recipe, value, support, seeded(1))
    assert torch.equal(value, before) and out.data_ptr() != value.data_ptr()
    assert (out.dtype, out.shape, out.stride(), out.device) == (dtype, value.shape, value.stride(), value.device)
    assert bool(torch.isfinite(out).all())
    if recipe == NATURAL or support.fixed:
        assert torch.equal(out, value)
        return
    assert support.low <= float(out.min()) and float(out.max()) <= support.high
    assert float(out.max()) > float(out.min())
    if recipe != "small integers":
        assert not torch.equal(out, value)


@pytest.mark.parametrize("recipe", CHANGING)
def test_a_positive_input_stays_positive_and_its_logarithm_finite(recipe: str) -> None:
    draw: Draw = lambda g: torch.rand(64, 512, generator=g).clamp(min=1e-7)  # noqa: E731
    assert bool(apply(recipe, draw(seeded(5)), shown(draw), seeded(2)).log().isfinite().all())


@pytest.mark.parametrize("recipe", RECIPES)
def test_values_follow_from_the_seed(recipe: str) -> None:
    support, value = shown(randn(64, 64)), randn(64, 64)(seeded(7))
    first = apply(recipe, value, support, seeded(1))
    assert torch.equal(first, apply(recipe, value, support, seeded(1)))
    if recipe in ("heavy tails", "sparse"):
        assert not torch.equal(first, apply(recipe, value, support, seeded(2)))


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.mT,
        lambda t: t[:, ::2],
        lambda t: t.reshape(4, 8, 16, 8).to(memory_format=torch.channels_last),
    ],
    ids=["transposed", "strided", "channels last"],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_strides_are_kept(recipe: str, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    draw: Draw = lambda g: view(torch.rand(64, 64, generator=g))  # noqa: E731
    value = draw(seeded(3))
    out = apply(recipe, value, shown(draw), seeded(0))
    assert out.shape == value.shape
    if recipe != NATURAL:  # a plain clone of a view with gaps closes them
        assert out.stride() == value.stride()
        assert not torch.equal(out, value)


def test_the_mean_moves_and_spread_remains() -> None:
    for draw, natural in ((rand(64, 256), 0.5), (randn(64, 256), 0.0)):
        out = apply("offset mean", draw(seeded(4)), shown(draw), seeded(0))
        assert abs(float(out.mean()) - natural) > 1.5 * float(out.std()) > 0
    sides = {float(apply("offset mean", randn(64, 256)(seeded(4)), shown(randn(64, 256)), seeded(s)).mean()) > 0
             for s in range(12)}  # fmt: skip
    assert sides == {True, False}


def test_outliers_carry_the_sum_and_every_row_has_one() -> None:
    draw = randn(128, 512)
    out = apply("heavy tails", draw(seeded(4)), shown(draw), seeded(0))
    large = out.abs() > 2
    assert bool(large.any(dim=1).all()) and 1 / 512 < float(large.double().mean()) <= 1 / 64
    assert float(out[large].abs().sum()) > float(out[~large].abs().sum())
    halves = out.abs()[:, :256].sum(1) / out.abs().sum(1)
    assert float(halves.min()) < 0.3 and float(halves.max()) > 0.7
    rows = large.sum(1)
    assert int(rows.min()) == 1 and int(rows.max()) > 4
    assert bool((out > 2).any()) and bool((out < -2).any())
    assert torch.unique(out[large]).numel() == int(large.sum()), "equal maxima would make argmax ambiguous"


def test_small_integers_are_integers_or_multiples_of_a_power_of_two() -> None:
    out = apply("small integers", randn(64, 64)(seeded(1)), shown(randn(64, 64)), seeded(0))
    assert torch.equal(out, out.round()) and torch.unique(out).numel() > 4
    out = apply("small integers", rand(64, 64)(seeded(1)), shown(rand(64, 64)), seeded(0))
    assert torch.equal(out * 16, (out * 16).round()) and torch.unique(out).numel() > 8


def test_half_of_the_elements_are_zero_under_sparse() -> None:
    out = apply("sparse", randn(64, 256)(seeded(1)), shown(randn(64, 256)), seeded(0))
    assert 0.45 < float((out == 0).double().mean()) < 0.55
    draw: Draw = lambda g: torch.rand(64, 64, generator=g) + 2  # noqa: E731
    support = shown(draw)
    out = apply("sparse", draw(seeded(1)), support, seeded(0))
    assert 0.4 < float((out == support.low).double().mean()) < 0.6


def test_a_stated_range_replaces_the_one_seen() -> None:
    support = observe(draws(randn(64, 64)), allowed=(-0.1, 0.3))
    assert (support.low, support.high) == (-0.1, 0.3)
    for dtype in DTYPES:  # in which 0.1 and 0.3 do not exist
        for recipe in CHANGING:
            out = apply(recipe, randn(64, 64)(seeded(1)).to(dtype), support, seeded(0))
            assert float(out.min()) >= -0.1 and float(out.max()) <= 0.3


def spd(g: torch.Generator) -> torch.Tensor:
    a = torch.randn(16, 16, generator=g)
    return a @ a.T


def boxes(g: torch.Generator) -> torch.Tensor:
    corner = torch.rand(50, 2, generator=g)
    return torch.cat([corner, corner + 0.1 + torch.rand(50, 2, generator=g)], dim=1)


FIXED: dict[str, tuple[Draw, str]] = {
    "integers": (lambda g: torch.randint(9, (20,), generator=g), "holds int64"),
    "booleans": (lambda g: torch.rand(20, generator=g) > 0.5, "holds bool"),
    "complex": (lambda g: torch.randn(20, generator=g, dtype=torch.complex64), "holds complex64"),
    "constant": (lambda g: torch.linspace(3, 0, 64).cos(), "the same for every seed"),
    "one value": (lambda g: torch.rand((), generator=g).expand(20).clone(), "all its values are equal"),
    "mask": (lambda g: (torch.rand(20, 20, generator=g) > 0.5).float(), "a mask of 0 and 1"),
    "labels": (lambda g: torch.randint(9, (200,), generator=g).float(), "holds integers"),
    "codes": (lambda g: torch.randint(4, (200,), generator=g) * 0.25 + 0.1, "has only 4 distinct values"),
    "probabilities": (lambda g: torch.randn(9, 40, generator=g).softmax(-1), "sums to 1 along dimension 1"),
    "over channels": (lambda g: torch.randn(9, 40, 6, generator=g).softmax(1), "sums to 1 along dimension 1"),
    "half probabilities": (lambda g: torch.randn(9, 40, generator=g).softmax(-1).bfloat16(), "sums to 1"),
    "log-probabilities": (lambda g: torch.randn(9, 40, generator=g).log_softmax(-1), "exponentials sum to 1"),
    "unit vectors": (
        lambda g: torch.nn.functional.normalize(torch.randn(50, 9, generator=g), dim=-1),
        "norm is 1 along dimension 1",
    ),
    "sorted": (lambda g: torch.rand(9, 40, generator=g).sort(-1).values, "sorted along dimension 1"),
    "descending": (lambda g: torch.rand(90, generator=g).sort(descending=True).values, "sorted along dimension 0"),
    "symmetric": (spd, "symmetric"),
    "batch of symmetric": (lambda g: torch.stack([spd(g) for _ in range(5)]), "symmetric"),
    "lower triangular": (lambda g: torch.rand(16, 16, generator=g).tril(), "triangular"),
    "upper triangular": (lambda g: torch.rand(3, 16, 16, generator=g).triu(1), "triangular"),
    "banded": (lambda g: torch.rand(16, 16, generator=g).tril(1).triu(-1), "zero at the same places"),
    "padded": (lambda g: torch.nn.functional.pad(torch.rand(8, 8, generator=g), (0, 4)), "zero at the same places"),
    "dominant diagonal": (lambda g: torch.randn(9, 9, generator=g) + 90 * torch.eye(9), "its diagonal dominates"),
    "boxes": (boxes, "its columns are ordered"),
    "infinite": (
        lambda g: torch.rand(9, 9, generator=g).masked_fill(torch.rand(9, 9, generator=g) > 0.5, -torch.inf),
        "holds infinities or NaN",
    ),
    "NaN": (lambda g: torch.rand(9, 9, generator=g).log().sub(0.5).sqrt(), "holds infinities or NaN"),
    "few": (rand(FEWEST - 1), "has fewer than 8 elements"),
    "empty": (rand(0, 4), "has fewer than 8 elements"),
    "expanded": (lambda g: torch.rand(20, 1, generator=g).expand(20, 5), "its elements share memory"),
    "varying": (lambda g: torch.rand(int(torch.randint(10, 10_000, (), generator=g)), generator=g), "its shape"),
    "float8": (lambda g: torch.rand(20, generator=g).to(torch.float8_e4m3fn), "holds float8_e4m3fn"),
}


@pytest.mark.parametrize("kind", FIXED)
def test_structure_is_left_alone(kind: str) -> None:
    draw, reason = FIXED[kind]
    support = observe(draws(draw))
    assert support.fixed.startswith(reason)
    assert observe(draws(draw), allowed=(-5.0, 5.0)).fixed == support.fixed
    value = draw(seeded(5))
    for recipe in RECIPES:
        out = apply(recipe, value, support, seeded(0))
        assert out.dtype == value.dtype
        assert value.is_complex() or torch.equal(torch.nan_to_num(out.float()), torch.nan_to_num(value.float()))


@pytest.mark.parametrize("shape", [(64, 64), (2, 3, 64, 64), (8,), (3, 3), (4096, 1), (1, 4096), (1000, 4), (2, 500)])
def test_plain_random_numbers_have_no_structure(shape: tuple[int, ...]) -> None:
    for draw in (rand(*shape), randn(*shape), lambda g: torch.randn(shape, generator=g).relu() + 0.0):
        assert observe(draws(draw, 2)).fixed == ""


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        observe([torch.rand(20)])
    with pytest.raises(ValueError, match="empty"):
        observe(draws(rand(20)), allowed=(1.0, 1.0))
    with pytest.raises(ValueError, match="odd"):
        apply("odd", torch.rand(20), Support(0, 1, ""), seeded(0))


# -- shortcuts: what passes on natural inputs under a loose tolerance shows under a recipe -------------------------

LOOSE = Tolerance(mode="explicit", atol=0.02, rtol=0.05)
Op = Callable[[torch.Tensor], torch.Tensor]


def half_norm(x: torch.Tensor) -> torch.Tensor:
    return x / x[:, : x.shape[1] // 2].pow(2).mean(1, keepdim=True).sqrt()


SHORTCUTS: dict[str, tuple[Draw, Op, Op, str]] = {
    "half of a sum": (
        randn(16, 16_384),
        lambda x: x.abs().mean(1),
        lambda x: x[:, :8192].abs().mean(1),
        "heavy tails",
    ),
    "half of a norm": (
        randn(16, 16_384),
        lambda x: x / x.pow(2).mean(1, keepdim=True).sqrt(),
        half_norm,
        "heavy tails",
    ),
    "every other element of a norm": (
        randn(64, 16_384),
        lambda x: x.pow(2).mean(1).sqrt(),
        lambda x: x[:, ::2].pow(2).mean(1).sqrt(),
        "heavy tails",
    ),
    "mean not subtracted": (
        randn(16, 16_384),
        lambda x: x.var(1, correction=0),
        lambda x: x.pow(2).mean(1),
        "offset mean",
    ),
    "mean taken for granted": (rand(16, 65_536), lambda x: x.mean(1), lambda x: torch.full((16,), 0.5), "sparse"),
    "maximum that starts at zero": (
        randn(64, 64),
        lambda x: x.amax(1),
        lambda x: x.amax(1).clamp(min=0),
        "offset mean",
    ),
    "sign without zero": (randn(64, 64), torch.sign, lambda x: torch.where(x > 0, 1.0, -1.0), "sparse"),
    "rounding to even": (randn(64, 64), lambda x: (x / 2).round(), lambda x: (x / 2 + 0.5).floor(), "small integers"),
    "mean of exponentials taken for granted": (
        lambda g: torch.randn(16, 1024, generator=g) * 0.5 + 0.0,
        lambda x: x.exp().mean(1),
        lambda x: torch.full((16,), 1.1331),
        "heavy tails",
    ),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_shortcuts_show(name: str) -> None:
    draw, right, wrong, recipe = SHORTCUTS[name]
    support = shown(draw)

    def ratio(recipe: str, seed: int) -> float:
        x = apply(recipe, draw(seeded(seed)), support, seeded(seed))
        expected = right(x)
        return compare("", wrong(x), expected, right(x.double()), LOOSE).ratio

    assert ratio(NATURAL, 11) <= 1
    assert max(ratio(recipe, seed) for seed in range(11, 17)) > 1
