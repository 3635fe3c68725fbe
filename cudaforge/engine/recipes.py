"""What the values of a trial's inputs look like: recipes that make shortcuts show, within the task's own support.

Random numbers of one kind hide shortcuts: a mean close to zero need not be subtracted, half of a sum is nearly the sum
once it is scaled, rounding hides a wrong precision. A recipe reshapes the values that the task itself drew, and never
leaves the range they show. A tensor with a structure that an operator may rely on is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

NATURAL = "natural"
RECIPES = (NATURAL, "offset mean", "heavy tails", "small integers", "sparse")
TIES = ("small integers", "sparse")
"""Recipes that give many elements the same value, so that an index of a maximum or of a sort is no longer unique."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FEWEST = 8
"""A tensor with fewer elements is a setting rather than data."""
CHUNK = 1 << 24
"""Elements that are looked at or written at once, to keep temporary memory small."""
SAMPLE = 1 << 16
"""Elements that tell of mean, spread and distinct values."""
LEVELS = 16
"""With no more distinct values than this a tensor holds codes, not measurements."""
RARE = 64
"""One element in so many is an outlier under heavy tails, and the others are so many times smaller."""
WIDE = 6.0
"""Offset goes no further than so many standard deviations: beyond, the spread drowns in the offset's rounding."""


@dataclass(frozen=True)
class Support:
    """Range of an input tensor. `fixed` says why it must be left as it is, "" where it may be changed."""

    low: float
    high: float
    fixed: str

    @property
    def neutral(self) -> float:
        """The value of the range that is closest to zero."""
        return min(max(0.0, self.low), self.high)


def observe(samples: list[torch.Tensor], allowed: tuple[float, float] | None = None) -> Support:
    """What the task's own draws of one input (at least two, from different seeds) show of its support.

    `allowed` is the range that the task's metadata states; it replaces the extremes that were seen, never the
    reasons to leave a tensor alone. Raises ValueError for fewer than two samples or an empty range.
    """
    if len(samples) < 2:
        raise ValueError("one sample does not show what is constant; at least two are needed")
    if allowed is not None and not allowed[0] < allowed[1]:
        raise ValueError(f"the allowed range {allowed} is empty")
    samples = [sample.detach() for sample in samples]
    fixed = _form(samples)
    if fixed:
        return Support(0.0, 0.0, fixed)
    extremes = [[float(x) for x in torch.aminmax(sample)] for sample in samples]
    low, high = min(e[0] for e in extremes), max(e[1] for e in extremes)
    if not all(math.isfinite(x) for pair in extremes for x in pair):
        return Support(low, high, "holds infinities or NaN")
    fixed = "all its values are equal" if any(a == b for a, b in extremes) else _values(samples) or _structure(samples)
    return Support(*(allowed or (low, high)), fixed)


def apply(recipe: str, value: torch.Tensor, support: Support, generator: torch.Generator) -> torch.Tensor:
    """A new tensor of the dtype, shape, strides and device of `value`, with the recipe's values inside the support.

    `value` is a natural draw; `generator` is on its device. Where the support is fixed, or for NATURAL, the values
    are those of `value`. Raises ValueError for an unknown recipe.
    """
    if recipe not in RECIPES:
        raise ValueError(f"no recipe is called {recipe!r}")
    value = value.detach()
    if recipe == NATURAL or support.fixed:
        return value.clone()
    low, high = _inside(support.low, value.dtype, 1), _inside(support.high, value.dtype, -1)
    if not low < high:
        return value.clone()
    out = value.clone(memory_format=torch.contiguous_format)
    inner = Support(low, high, "")
    {
        "offset mean": _offset_mean,
        "heavy tails": _heavy_tails,
        "small integers": _small_integers,
        "sparse": _sparse,
    }[recipe](out, inner, generator)
    out.clamp_(low, high)  # a later draw of the task may lie outside what the samples showed
    if out.stride() == value.stride():
        return out
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device).copy_(out)


# -- recipes: each changes a contiguous tensor in place ----------------------------------------------------------


def _offset_mean(out: torch.Tensor, support: Support, generator: torch.Generator) -> None:
    """Halfway towards one end of the range: the farther one, or the one away from zero, or a random one."""
    sample = _sample(out).double()
    mean, spread = float(sample.mean()), float(sample.std())
    up, down = support.high - mean, mean - support.low
    if max(up, down) > 2 * min(up, down):
        upwards = up > down
    elif support.neutral != 0:
        upwards = support.low > 0
    else:
        upwards = support.low == 0 or bool(torch.randint(2, (), generator=generator, device=out.device))
    end = min(support.high, mean + WIDE * spread) if upwards else max(support.low, mean - WIDE * spread)
    end = min(max(end, support.low), support.high)
    out.mul_(0.5).add_(0.5 * end)


def _heavy_tails(out: torch.Tensor, support: Support, generator: torch.Generator) -> None:
    """Small values, and rare ones in the outer eighth of the range, one or more in every row of 8 or longer.

    A row's outliers lie within an eighth of it, so that a part of the row does not stand for the whole; and there are
    anything from one to a RARE-th, so that not even every other element does.
    """
    flat, length = out.view(-1), out.shape[-1]
    if length < FEWEST:
        length = out.numel()
    rows, most = out.numel() // length, max(1, length // RARE)
    start = torch.randint(length, (rows, 1), generator=generator, device=out.device)
    places = torch.randint(max(1, length // 8), (rows, most), generator=generator, device=out.device)
    number = torch.rand(rows, 1, generator=generator, device=out.device).mul_(math.log(most)).exp_()
    places = torch.where(torch.arange(1, most + 1, device=out.device) <= number, places, places[:, :1])
    places = places.add_(start).remainder_(length)
    places = places.add_(torch.arange(0, out.numel(), length, device=out.device)[:, None]).view(-1)
    outliers = flat[places]
    low, high = support.low, support.high
    if min(-low, high) > max(-low, high) / 4:  # both ends lie far from zero
        upwards = places % 2 == 0  # of a place that was drawn twice, both are the same
    else:
        upwards = torch.full_like(places, high >= -low, dtype=torch.bool)
    # Not the ends themselves: equal maxima would make an index ambiguous that the task's own inputs leave unique.
    ends = torch.full_like(outliers, low).masked_fill_(upwards, high)
    outliers = ends + (outliers - ends) / 8
    centre = support.neutral
    out.mul_(1 / RARE).add_(centre * (1 - 1 / RARE))
    flat[places] = outliers


def _small_integers(out: torch.Tensor, support: Support, generator: torch.Generator) -> None:
    """Integers, or in a range that holds fewer than two of them multiples of a power of two: sums become exact."""
    step = 1.0
    first, last = math.ceil(support.low), math.floor(support.high)
    if last - first < 1:
        spacing = torch.finfo(out.dtype).eps * 2.0 ** math.floor(math.log2(max(-support.low, support.high)))
        step = max(2.0 ** math.floor(math.log2((support.high - support.low) / 8)), spacing)
        first, last = math.ceil(support.low / step), math.floor(support.high / step)
    if last - first < 1 or step < 2.0**-126:
        return
    out.mul_(1 / step).round_().clamp_(first, last).mul_(step).add_(0.0)  # -0.0 becomes 0.0


def _sparse(out: torch.Tensor, support: Support, generator: torch.Generator) -> None:
    """About half of the elements, at random places, are zero or what of the range is closest to it."""
    for piece in out.view(-1).split(CHUNK):
        mask = torch.empty(piece.shape, dtype=torch.bool, device=out.device).bernoulli_(0.5, generator=generator)
        piece.masked_fill_(mask, support.neutral)


def _inside(bound: float, dtype: torch.dtype, towards: int) -> float:
    """The bound as the dtype can hold it, rounded into the range (up for towards=1, down for -1)."""
    held = torch.tensor(bound, dtype=torch.float64).clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)
    if (float(held) - bound) * towards < 0:
        held = torch.nextafter(held, torch.tensor(towards * math.inf, dtype=dtype))
    return float(held)


# -- reasons to leave a tensor alone -----------------------------------------------------------------------------


def _form(samples: list[torch.Tensor]) -> str:
    """Reasons that dtype, layout and shape give."""
    first = samples[0]
    if any(s.shape != first.shape or s.dtype != first.dtype for s in samples):
        return "its shape differs from draw to draw"
    if first.layout != torch.strided or first.is_quantized:
        return "not a plain tensor"
    if first.dtype not in DTYPES:
        return f"holds {str(first.dtype).removeprefix('torch.')}"
    if first.numel() < FEWEST:
        return f"has fewer than {FEWEST} elements"
    if any(stride == 0 and size > 1 for s in samples for size, stride in zip(s.shape, s.stride(), strict=True)):
        return "its elements share memory"
    return ""


def _values(samples: list[torch.Tensor]) -> str:
    """Reasons that the values give, wherever they stand."""
    if all(torch.equal(samples[0], other) for other in samples[1:]):
        return "the same for every seed"
    if _all(samples, lambda t: bool(((t == 0) | (t == 1)).all())):
        return "a mask of 0 and 1"
    if _all(samples, lambda t: bool((t == t.round()).all())):
        return "holds integers"
    distinct = max(int(torch.unique(_sample(s)).numel()) for s in samples)
    if distinct <= min(LEVELS, samples[0].numel() // 2):
        return f"has only {distinct} distinct values"
    zeros = [sum(int((p == 0).sum()) for p in s.reshape(-1).split(CHUNK)) for s in samples]
    if zeros[0] and len(set(zeros)) == 1 and all(torch.equal(samples[0] == 0, s == 0) for s in samples[1:]):
        triangular = "triangular" if _square(samples[0]) and all(_triangular(s) for s in samples) else ""
        return triangular or "zero at the same places for every seed"
    return ""


def _structure(samples: list[torch.Tensor]) -> str:
    """Reasons that the relation of elements to one another gives; each must hold in all samples."""
    shape = samples[0].shape
    for dim in reversed(range(len(shape))):
        if shape[dim] < 2:
            continue
        for reason, holds in ALONG.items():
            # A few rows refute nearly every case, without a temporary of the tensor's size.
            if all(holds(_corner(s, dim), dim) for s in samples) and all(holds(s, dim) for s in samples):
                return f"{reason} along dimension {dim}"
    if _square(samples[0]):
        for reason, whole in SQUARE.items():
            if all(whole(_minor(s)) for s in samples) and all(whole(s) for s in samples):
                return reason
    if 2 <= shape[-1] <= FEWEST and samples[0].numel() // shape[-1] >= 16 and _ordered_columns(samples):
        return "its columns are ordered"
    return ""


def _tolerance(t: torch.Tensor) -> float:
    return max(4 * torch.finfo(t.dtype).eps, 1e-4)


def _is_one(t: torch.Tensor, by: torch.Tensor) -> bool:
    return bool(((by.double() - 1).abs() <= _tolerance(t)).all())


def _is_sorted(t: torch.Tensor, dim: int) -> bool:
    before, after = t.narrow(dim, 0, t.shape[dim] - 1), t.narrow(dim, 1, t.shape[dim] - 1)
    return bool((before <= after).all()) or bool((before >= after).all())


def _is_symmetric(t: torch.Tensor) -> bool:
    return bool(((t - t.mT).abs() <= 8 * torch.finfo(t.dtype).eps * t.abs().amax()).all())


def _dominated(t: torch.Tensor) -> bool:
    return bool((2 * t.diagonal(dim1=-2, dim2=-1).abs().double() >= t.abs().sum(-1, dtype=torch.float64)).all())


def _triangular(t: torch.Tensor) -> bool:
    return not bool(t.triu(1).any()) or not bool(t.tril(-1).any())


ALONG: dict[str, Callable[[torch.Tensor, int], bool]] = {
    "sums to 1": lambda t, dim: _is_one(t, t.sum(dim, dtype=torch.float64)),
    "exponentials sum to 1": lambda t, dim: _is_one(t, t.exp().sum(dim, dtype=torch.float64)),
    "norm is 1": lambda t, dim: _is_one(t, torch.linalg.vector_norm(t, dim=dim, dtype=torch.float64)),
    "sorted": _is_sorted,
}
SQUARE: dict[str, Callable[[torch.Tensor], bool]] = {
    "symmetric": _is_symmetric,
    "its diagonal dominates": _dominated,
}


def _ordered_columns(samples: list[torch.Tensor]) -> bool:
    """Whether one column never exceeds another: corners of boxes, or columns of different meaning."""
    columns = range(samples[0].shape[-1])
    return any(all(bool((s[..., i] <= s[..., j]).all()) for s in samples) for i in columns for j in columns if i != j)


def _square(t: torch.Tensor) -> bool:
    return t.dim() >= 2 and t.shape[-1] == t.shape[-2] >= 2


def _corner(t: torch.Tensor, dim: int) -> torch.Tensor:
    """A view of few rows along `dim`, each whole."""
    for d, size in enumerate(t.shape):
        if d != dim:
            t = t.narrow(d, 0, min(size, 4))
    return t


def _minor(t: torch.Tensor) -> torch.Tensor:
    """The leading block of the first few matrices; a property of `t` in SQUARE need hold there, too."""
    for d, size in enumerate(t.shape):
        t = t.narrow(d, 0, min(size, 64 if d >= t.dim() - 2 else 4))
    return t


def _sample(t: torch.Tensor) -> torch.Tensor:
    """Up to SAMPLE elements from all over the tensor, flat."""
    return t.reshape(-1)[:: max(1, -(-t.numel() // SAMPLE))]


def _all(samples: list[torch.Tensor], holds: Callable[[torch.Tensor], bool]) -> bool:
    """Whether something holds of every element; asked piece by piece, so that the first piece mostly decides."""
    return all(holds(piece) for sample in samples for piece in sample.reshape(-1).split(CHUNK))
