"""Compares outputs with what was expected, and says in words where they differ. Pure tensor work, no process.

Calibrated tolerance: an element may be off from the float64 reference by `multiple` times the error that PyTorch's
own dtype makes on elements of like magnitude, with a floor relative to the element itself. Magnitude matters: an
absolute bound taken from the large elements would let tiny ones be zero, and a purely relative one would reject honest
sums that cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cudaforge.evaluation import OutputError
from cudaforge.task import Tolerance

FLOOR = {"float64": 1e-12, "float32": 3e-5, "float16": 2.0**-9, "bfloat16": 2.0**-6}
"""Always allowed relative to the expected value: an honest kernel that orders its sums anew. In float32 it is half the
bound on a thousand terms added one by one; a rounding of TF32 or float16 is up to sixteen times as much."""
KERNELBENCH = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-2}
FEW = 256
"""A magnitude bin with fewer elements borrows its neighbours' error: its own may be small by luck."""


UNITS = 8
"""Roundings of float32 at the output's typical size that are always allowed: where large terms cancel, an honest sum is
off by some of them, and PyTorch may be exact by luck (sums of small integers) or by care (sums in double)."""
COARSE, COARSE_FROM = 2.0, 1024
"""A half-precision output of so many elements may be off by so many times PyTorch's own error, root mean square. Single
elements may be further off, but all of them together are only where less was computed: by eight bits, or by means."""
LEAST_RMS = 0.25
"""Of a rounding at the typical size: what is always allowed then."""

STRAGGLERS, STRAGGLE = 1e-4, 2.0
"""Share of an output's elements that may exceed a calibrated tolerance, and how many times."""


@dataclass(frozen=True)
class Comparison:
    """One output of one trial. `ratio` is the largest error / allowed error; at most 1 passes."""

    ratio: float
    error: OutputError | None


def describe(tolerance: Tolerance) -> str:
    """The tolerance in words."""
    if tolerance.mode == "explicit":
        return f"|out - float64 reference| <= {tolerance.atol:g} + {tolerance.rtol:g} * |reference|"
    if tolerance.mode == "kernelbench":
        return "allclose to eager: 1e-4 (fp32), 1e-2 (half)"
    return f"{tolerance.multiple:g} x PyTorch's own error against float64, by magnitude, with a floor"


def compare(
    name: str, got: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor, tolerance: Tolerance
) -> Comparison:
    """Compares `got` with `expected` (the reference in its own dtype) and `exact` (float64), all of one shape.

    NaN and infinities must match by position and sign with `expected`. Integers and booleans must be equal.
    """
    if not expected.is_floating_point():
        bad = got != expected
        ratio = float("inf") if bool(bad.any()) else 0.0
        return Comparison(ratio, _error(name, got, expected, bad, None) if ratio else None)
    finite = torch.isfinite(expected)
    special = torch.where(
        torch.isnan(expected), ~torch.isnan(got), torch.where(finite, ~torch.isfinite(got), got != expected)
    )
    want = expected.double() if tolerance.mode == "kernelbench" else exact
    # Where only the own dtype overflows or is NaN, it stands; where float64 is not finite, so be it.
    want = torch.where(finite & torch.isfinite(want), want, expected.double())
    off = (got.double() - want).abs()
    own = torch.where(finite, (expected.double() - want).abs(), 0.0)
    allowed = _allowed(want, own, finite, str(expected.dtype).removeprefix("torch."), tolerance)
    share = torch.where(finite & torch.isfinite(off), off / allowed, 0.0)
    share = torch.where(special, torch.inf, share)
    bad = share > 1
    if tolerance.mode == "calibrated":
        bad = _without_stragglers(share, bad)
        share = torch.where(bad, share, share.clamp(max=1.0))
    ratio = float(share.max()) if share.numel() else 0.0
    if bool(bad.any()):
        return Comparison(ratio, _error(name, got, want, bad, float(own.max())))
    if tolerance.mode == "calibrated" and expected.element_size() == 2 and expected.numel() >= COARSE_FROM:
        return _as_a_whole(name, got, want, own, finite, ratio)
    return Comparison(ratio, None)


def _as_a_whole(
    name: str, got: torch.Tensor, want: torch.Tensor, own: torch.Tensor, finite: torch.Tensor, ratio: float
) -> Comparison:
    """Whether all elements together are as exact as PyTorch's, where each by itself is near enough."""
    off = torch.where(finite, got.double() - want, 0.0)
    mine, theirs, typical = (float(t.pow(2).mean().sqrt()) for t in (off, own, torch.where(finite, want, 0.0)))
    least = LEAST_RMS * torch.finfo(got.dtype).eps * typical
    limit = max(COARSE * theirs, least)
    if mine <= limit:
        return Comparison(max(ratio, mine / limit if limit else 0.0), None)
    error = _error(name, got, want, off.abs() > limit, float(own.max()))
    told = f"as a whole too coarse: {mine / max(theirs, least):.2g} times PyTorch's error, root mean square"
    return Comparison(mine / limit, error.model_copy(update={"pattern": told}))


def _without_stragglers(share: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """`bad`, or nothing where all that is bad is STRAGGLERS of the elements, by no more than STRAGGLE times.

    What is allowed is itself an estimate, from the elements of one output: where large terms cancel, PyTorch's error
    on the few elements near zero is small by luck, and an honest sum in another order is a little off there.
    """
    count = int(bad.sum())
    few = count <= STRAGGLERS * bad.numel() and not bool((share > STRAGGLE).any())
    return torch.zeros_like(bad) if few else bad


ALIKE, ALIKE_WHOLE = 0.02, 1e-4
"""How far a timed output may be from eager's, loosely: of a float, of the typical size; and the share of whole numbers
that may be others, as where two sums that are nearly equal decide."""
ROUNDINGS = 64.0
"""Runs on the same input whose results differ by more roundings than this are no mere change of the order of a sum."""


def differs(before: torch.Tensor, now: torch.Tensor) -> float:
    """Largest difference of two runs on the same input in roundings of the element, or of the typical element where
    that is larger; 0 where they are the same bit by bit, infinite where integers or special values differ."""
    if not before.is_floating_point():
        return 0.0 if torch.equal(before, now) else float("inf")
    a, b = before.double(), now.double()
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)):
        return float("inf")
    a, b = torch.where(finite, a, 0.0), torch.where(finite, b, 0.0)
    if torch.equal(a, b) or not a.numel():
        return 0.0
    unit = torch.finfo(before.dtype).eps * torch.maximum(a.abs(), a.pow(2).mean().sqrt())
    return float(((a - b).abs() / unit.clamp(min=torch.finfo(torch.float64).tiny)).max())


def alike(got: torch.Tensor, expected: torch.Tensor, share: float = ALIKE) -> bool:
    """Whether an output of a timed call is that of its inputs, loosely: within `share` of the expected element and of
    the typical size. Tells a call that was skipped or ran on other inputs from one that was made; `compare` judges how
    exact it was."""
    if not expected.is_floating_point():
        return bool((got != expected).double().mean() <= ALIKE_WHOLE) if expected.numel() else True
    got, expected = got.double(), expected.double()
    finite = torch.isfinite(expected)
    if not bool((torch.isfinite(got) == finite).all()):
        return False
    want = torch.where(finite, expected, 0.0)
    off = torch.where(finite, got - expected, 0.0).abs()
    typical = want.pow(2).mean().sqrt() if want.numel() else want.sum()
    return bool((off <= share * (want.abs() + typical) + torch.finfo(torch.float32).tiny).all())


def own_error(expected: torch.Tensor, exact: torch.Tensor) -> float:
    """How far the reference in its own dtype is from float64, in the terms of `alike`."""
    if not expected.is_floating_point() or not expected.numel():
        return 0.0
    finite = torch.isfinite(expected) & torch.isfinite(exact)
    want = torch.where(finite, exact, 0.0)
    off = torch.where(finite, expected.double() - exact, 0.0).abs()
    unit = want.abs() + want.pow(2).mean().sqrt() + torch.finfo(torch.float64).tiny
    return float((off / unit).max())


def _allowed(
    want: torch.Tensor, own: torch.Tensor, finite: torch.Tensor, dtype: str, tolerance: Tolerance
) -> torch.Tensor:
    if tolerance.mode == "explicit":
        return tolerance.atol + tolerance.rtol * want.abs() + torch.finfo(torch.float64).tiny
    if tolerance.mode == "kernelbench":
        limit = KERNELBENCH.get(dtype, 1e-4)
        return limit + limit * want.abs()
    info = torch.finfo(getattr(torch, dtype))
    magnitude = torch.where(finite, want.abs(), 0.0).clamp(min=info.tiny)
    bins = torch.log2(magnitude).floor().to(torch.int64)
    low = int(bins.min()) if bins.numel() else 0
    bins -= low
    count = int(bins.max()) + 1 if bins.numel() else 1
    worst = torch.zeros(count, dtype=torch.float64, device=want.device)
    worst.scatter_reduce_(0, bins.flatten(), own.flatten(), "amax")
    number = torch.bincount(bins.flatten(), minlength=count)
    smooth = _borrow(worst.tolist(), number.tolist())
    calibrated = torch.tensor(smooth, dtype=torch.float64, device=want.device)[bins]
    floor = FLOOR.get(dtype, 3e-5) * magnitude
    # An exact zero has no magnitude to be relative to: one rounding of the output's typical size is granted.
    typical = float(torch.where(finite, want, 0.0).pow(2).mean().sqrt()) if want.numel() else 0.0
    at_zero = torch.where(want == 0, info.eps * typical, 0.0)
    units = UNITS * min(info.eps, torch.finfo(torch.float32).eps) * typical
    return tolerance.multiple * calibrated + floor + at_zero + units


def _borrow(worst: list[float], number: list[int]) -> list[float]:
    """Each bin's worst error, with its neighbours' until FEW elements stand behind it, however far they lie: a lone
    element near zero has an error of its own only by luck."""
    smooth = []
    for i in range(len(worst)):
        left = right = i
        seen, value = number[i], worst[i]
        while seen < FEW and (left > 0 or right < len(worst) - 1):
            left, right = max(left - 1, 0), min(right + 1, len(worst) - 1)
            seen, value = sum(number[left : right + 1]), max(worst[left : right + 1])
        smooth.append(value)
    return smooth


def _error(name: str, got: torch.Tensor, want: torch.Tensor, bad: torch.Tensor, reference: float | None) -> OutputError:
    where = bad.flatten().nonzero().flatten()
    off = (got.double() - want.double()).abs()
    finite = torch.isfinite(off) & bad
    first = []
    shape = tuple(got.shape)
    for flat in where[:5].tolist():
        index = _unravel(flat, shape)
        first.append((index, _number(want.flatten()[flat]), _number(got.flatten()[flat])))
    relative = off / want.double().abs().clamp(min=torch.finfo(torch.float64).tiny)
    return OutputError(
        output=name,
        mismatched=int(where.numel()),
        total=got.numel(),
        max_abs=float(off[finite].max()) if bool(finite.any()) else None,
        max_rel=float(relative[finite].max()) if bool(finite.any()) else None,
        reference_max_abs=reference,
        first=tuple(first),
        pattern=pattern(got, want, bad),
    )


def _number(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))


def pattern(got: torch.Tensor, want: torch.Tensor, bad: torch.Tensor) -> str:
    """Where the errors are and what they look like, in plain words."""
    shape, total = tuple(got.shape), bad.numel()
    where = bad.flatten().nonzero().flatten()
    count = int(where.numel())
    if not count:
        return ""
    notes = []
    nan = int(torch.isnan(got.flatten()[where].double()).sum()) if got.is_floating_point() else 0
    if nan == count:
        notes.append("every wrong element is NaN: never written, or 0/0")
    elif nan:
        notes.append(f"{nan} of the wrong elements are NaN")
    if count > 0.95 * total:  # a transposed matrix still has its diagonal right
        notes.append("every element is wrong" if count == total else "nearly every element is wrong")
        notes += _relation(got, want)
    if count < total:
        first, last = int(where[0]), int(where[-1])
        if last - first + 1 == count:
            notes.append(
                f"exactly the elements from {_unravel(first, shape)} on"
                if last == total - 1
                else f"one contiguous piece from {_unravel(first, shape)} to {_unravel(last, shape)}"
            )
        notes += _along_dimensions(bad, shape)
        steps = (where[1:] - where[:-1]).unique()
        if count > 2 and steps.numel() == 1 and int(steps[0]) > 1:
            notes.append(f"every {int(steps[0])}th element, starting at {first}")
    return "; ".join(notes) or f"{count} of {total} elements, scattered"


def _along_dimensions(bad: torch.Tensor, shape: tuple[int, ...]) -> list[str]:
    notes = []
    for dim, size in enumerate(shape):
        if size < 2:
            continue
        others = [d for d in range(len(shape)) if d != dim]
        hit = bad.any(dim=others) if others else bad
        hits = hit.nonzero().flatten()
        n = int(hits.numel())
        if n == size:
            continue
        span = int(hits[-1]) - int(hits[0]) + 1
        axis = f"dimension {dim} (size {size})"
        if span == n and int(hits[-1]) == size - 1:
            notes.append(f"only at indices >= {int(hits[0])} of {axis}: the last tile or tail")
        elif span == n:
            notes.append(f"only at indices {int(hits[0])} to {int(hits[-1])} of {axis}")
        else:
            notes.append(f"only at {n} of the indices of {axis}, first {hits[:4].tolist()}")
    return notes


def _relation(got: torch.Tensor, want: torch.Tensor) -> list[str]:
    """Whether a wholly wrong output is zero, scaled, shifted or transposed."""
    g, w = got.double(), want.double()
    if not bool(torch.isfinite(g).all()) or g.numel() < 4:
        return []
    if not bool(g.any()):
        return ["the output is all zeros"]
    ratio = (g / w)[w.abs() > w.abs().mean() * 0.1]
    if ratio.numel() > 3 and float(ratio.std()) < 1e-3 * abs(float(ratio.mean())):
        return [f"off by the constant factor {float(ratio.mean()):.6g}"]
    shift = g - w
    if float(shift.std()) < 1e-3 * abs(float(shift.mean())):
        return [f"off by the constant {float(shift.mean()):.6g}"]
    if g.dim() == 2 and g.shape[0] == g.shape[1] and torch.allclose(g.T, w, rtol=1e-3, atol=1e-5):
        return ["the output is transposed"]
    return []
