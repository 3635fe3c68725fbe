"""Task admission: would a cheap wrong answer pass, and which bytes of the inputs matter at all?

Asked once for a task and workload, in the reference's process. A flag does not make a kernel wrong; it says that
the task cannot tell a right kernel from a cheap one, so its numbers are reported apart.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from cudaforge.engine import recipes
from cudaforge.engine.check import compare
from cudaforge.engine.protocol import pack, unpack
from cudaforge.task import Tolerance

HALVES = 24
"""Evaluations of the reference with half of a dimension blanked."""
SECTORS, SECTOR = 64, 32
"""Sectors that are replaced, each alone and twice at most; bytes of one: what memory moves at least."""
SECTORS_S = 10.0
"""Time after which no more of them are made. Fewer show less, and nothing wrong."""
UNLIKELY = 1e-3
"""Chance that so many sectors matter by luck, of an input of which fewer do than are counted."""
SINGLE = 16
"""Inputs that are replaced as a whole, the largest first."""
SAMPLE = 1 << 16
SURE = 64.0
"""An output whose SAMPLE elements are this many times too far off is not compared in full."""
RANDOM = "random: "
"""Prefix of the flag of a task without a single right answer; no other question is asked of it."""

Run = Callable[[list[Any]], list[torch.Tensor]]
Change = Callable[[list[torch.Tensor]], None]
"""Changes a list of fresh copies of the input tensors."""


@dataclass(frozen=True)
class Admission:
    """`flags`: evidence that a cheap wrong answer passes, in words. `live_bytes`: bytes of the inputs shown to matter.

    Random sectors are replaced, each alone, and the share that changes the outputs is counted at its lower confidence
    bound. So of a matrix of which only a triangle is used, or a table from which rows are gathered, no more counts than
    a kernel has to read. What makes the reference fail shows nothing. The true number is larger.
    """

    flags: tuple[str, ...]
    live_bytes: int


def examine(forward: Run, exact: Run | None, inputs: list[Any], others: list[Any], tolerance: Tolerance) -> Admission:
    """Runs the reference on two independent input lists of one structure and on manipulated copies of the first.

    `forward` returns the output tensors in the task's own dtype, `exact` in float64 (None: float64 does not work).
    Neither may seed a generator, or a random task is not seen. Inputs are copied before each call. What `forward`
    raises on the inputs themselves is passed on; on a manipulated copy it means that the probe does not pass.
    """
    return _Examination(forward, exact, inputs, others, tolerance).result()


class _Examination:
    """The unmanipulated runs, and the probes that are compared with them. Tensor leaves are known by their index."""

    def __init__(
        self, forward: Run, exact: Run | None, inputs: list[Any], others: list[Any], tolerance: Tolerance
    ) -> None:
        self.forward, self.tolerance = forward, tolerance
        self.tensors: list[torch.Tensor] = []
        self.others: list[torch.Tensor] = []
        self.tree = pack(inputs, self.tensors)
        self.other_tree = pack(others, self.others)
        if len(self.others) != len(self.tensors):
            raise ValueError("the two input lists differ in structure")
        self.expected = [t.clone() for t in self._run(forward, self.tree, self.tensors)]
        self.exact = self.expected
        if exact is not None:
            self.exact = [t.clone() for t in self._run(exact, self.tree, self.tensors)]
        again = self._run(forward, self.tree, self.tensors)
        self.noisy = not self._same(again)
        self.random = self.noisy and not self._repeats(
            again if exact is None else self._run(exact, self.tree, self.tensors)
        )
        largest = sorted(range(len(self.tensors)), key=lambda i: -self.tensors[i].nbytes)
        self.single = sorted(i for i in largest[:SINGLE] if not _equal(self.tensors[i], self.others[i]))
        """Inputs that can be replaced by another draw; one that is the same for every seed cannot."""

    def result(self) -> Admission:
        """Asks everything, the cheap questions first."""
        if self.random:
            total = sum(t.nbytes for t in self.tensors)
            return Admission((RANDOM + "two runs on the same input differ",), total)
        flags = self._answers_without_work()
        alone = "the output does not depend on the inputs at all" not in flags
        changed, unused = [], set()
        for i in self.single:
            out = self._probe(self._replacing(i))
            if alone and self._passes(out):
                unused.add(i)
                flags.append(f"the output does not depend on input {i}")
            if self._changed(out):
                changed.append(i)
        flags += self._halves(unused)
        return Admission(tuple(flags), self._live_bytes(changed))

    def _answers_without_work(self) -> list[str]:
        flags = []
        if self._passes([torch.zeros_like(t) for t in self.expected]):
            flags.append("zeros would pass")
        # The mean comes from other inputs: that of a single number is the number itself.
        foreign = self._attempt(self.other_tree, self.others)
        if foreign is not None and self._passes([_mean(t) for t in foreign]):
            flags.append("a constant would pass")
        for i, tensor in enumerate(self.tensors):
            if self._passes([tensor] * len(self.expected)):
                flags.append(f"input {i} itself would pass")
        comparable = bool(self.single) or not self.tensors or self.tree != self.other_tree
        if comparable and self._passes(foreign):
            flags.append("the output does not depend on the inputs at all")
        return flags

    def _halves(self, unused: set[int]) -> list[str]:
        """Of the inputs that matter at all, which could be read by half."""
        places = [
            (size, i, dim)
            for i, tensor in enumerate(self.tensors)
            if tensor.is_floating_point() and i not in unused
            for dim, size in enumerate(tensor.shape)
            if size >= 2 and tensor.numel()
        ]
        places = sorted(sorted(places, key=lambda place: -place[0])[:HALVES], key=lambda place: place[1:])
        flags = []
        for _, i, dim in places:
            half, value = self._half(i, dim)
            if bool((half == value).all()):
                continue
            if self._passes(self._probe(self._blanking(i, dim, value))):
                flags.append(f"half of dimension {dim} of input {i} would pass")
        return flags

    def _live_bytes(self, changed: list[int]) -> int:
        """Each input's bytes times the share of its sectors that are shown to matter."""
        total = sum(self.tensors[i].nbytes for i in changed) or 1
        rng, until, live = random.Random(0), time.monotonic() + SECTORS_S, 0
        for i in changed:
            tensor = self.tensors[i]
            if tensor.shape != self.others[i].shape or _is_sorted(tensor):
                continue
            width = max(SECTOR // tensor.element_size(), 1)
            tried, silent = 0, []
            for _ in range(math.ceil(SECTORS * tensor.nbytes / total)):
                if time.monotonic() > until:
                    break
                start = rng.randrange((tensor.numel() + width - 1) // width) * width
                tried += 1
                if not self._shows(self._replacing(i, start, min(start + width, tensor.numel()))):
                    silent.append(start)
            shown = tried - len(silent) + self._shown_by_extremes(i, silent, width, until)
            live += int(tensor.nbytes * at_least(shown, tried))
        return live

    def _shown_by_extremes(self, i: int, starts: list[int], width: int, until: float) -> int:
        """How many of the sectors that begin at `starts` show with other values: of a maximum, few elements decide.

        Values are the extremes of the input's own, and of inputs without structure alone.
        """
        if not starts or not self.tensors[i].is_floating_point():
            return 0
        support = recipes.observe([self.tensors[i], self.others[i]])
        if support.fixed or not self._shows(self._extreme(i, starts, width, support)):
            return 0  # all of them at once do not
        return sum(time.monotonic() < until and self._shows(self._extreme(i, [at], width, support)) for at in starts)

    def _shows(self, change: Change) -> bool:
        """Whether the outputs are others. What raises may do so for a form that the inputs have lost."""
        got = self._probe(change)
        return got is not None and self._changed(got)

    # -- manipulated inputs

    def _replacing(self, i: int, start: int = 0, stop: int | None = None) -> Change:
        """Elements from `start` to `stop`, in flattened order, come from the other draw."""
        other = self.others[i]

        def change(fresh: list[torch.Tensor]) -> None:
            if stop is None:
                fresh[i] = other.clone()
            else:
                with _flattened(fresh[i]) as flat:
                    flat[start:stop] = other.reshape(-1)[start:stop]

        return change

    def _extreme(self, i: int, starts: list[int], width: int, support: recipes.Support) -> Change:
        """The sectors that begin at `starts` hold the largest and the smallest value by turns."""

        def change(fresh: list[torch.Tensor]) -> None:
            with _flattened(fresh[i]) as flat:
                for start in starts:
                    flat[start : start + width : 2] = support.high
                    flat[start + 1 : start + width : 2] = support.low

        return change

    def _half(self, i: int, dim: int) -> tuple[torch.Tensor, float]:
        """The second half along `dim`, and zero, or of the input's range what is closest to it."""
        tensor = self.tensors[i].detach()
        size = tensor.shape[dim]
        low, high = (float(x) for x in torch.aminmax(tensor))
        value = min(max(0.0, low), high) if low < high else 0.0
        return tensor.narrow(dim, size - size // 2, size // 2), value

    def _blanking(self, i: int, dim: int, value: float) -> Change:
        size = self.tensors[i].shape[dim]

        def change(fresh: list[torch.Tensor]) -> None:
            fresh[i].narrow(dim, size - size // 2, size // 2).fill_(value)

        return change

    # -- runs and comparisons

    def _run(
        self, what: Run, tree: Any, tensors: list[torch.Tensor], change: Change | None = None
    ) -> list[torch.Tensor]:
        fresh = [t.clone() for t in tensors]
        if change is not None:
            change(fresh)
        return what(unpack(tree, fresh))

    def _attempt(
        self, tree: Any, tensors: list[torch.Tensor], change: Change | None = None
    ) -> list[torch.Tensor] | None:
        try:
            return self._run(self.forward, tree, tensors, change)
        except Exception:  # the task's own code on inputs that it was not written for
            return None

    def _probe(self, change: Change) -> list[torch.Tensor] | None:
        return self._attempt(self.tree, self.tensors, change)

    def _same(self, got: list[torch.Tensor]) -> bool:
        return len(got) == len(self.expected) and all(map(_equal, got, self.expected))

    def _repeats(self, again: list[torch.Tensor]) -> bool:
        """Whether another run of the most exact form gives the same up to rounding.

        The tolerance cannot tell: of a random task the reference in float64 is another draw, which would allow much.
        """
        return len(again) == len(self.exact) and all(map(_close, again, self.exact))

    def _changed(self, got: list[torch.Tensor] | None) -> bool:
        """Whether the outputs show it; where equal inputs give unequal bits, beyond the tolerance only."""
        return got is None or not (self._passes(got) if self.noisy else self._same(got))

    def _passes(self, got: list[torch.Tensor] | None) -> bool:
        """Whether every output would be accepted."""
        if got is None or len(got) != len(self.expected):
            return False
        if any(g.shape != e.shape or g.dtype != e.dtype for g, e in zip(got, self.expected, strict=True)):
            return False
        return all(map(self._accepted, got, self.expected, self.exact))

    def _accepted(self, got: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor) -> bool:
        step = expected.numel() // SAMPLE
        if step > 1:
            few, wanted, truth = (t.reshape(-1)[::step] for t in (got, expected, exact))
            if compare("", few, wanted, truth, self.tolerance).ratio > SURE:
                return False
        return compare("", got, expected, exact, self.tolerance).ratio <= 1


def at_least(shown: int, tried: int) -> float:
    """The share of all that is there, where so many of those tried at random showed something: the lower bound of
    Clopper and Pearson, that of a share which shows as many with a chance of UNLIKELY."""
    if not shown:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        as_many = sum(math.comb(tried, k) * share**k * (1 - share) ** (tried - k) for k in range(shown, tried + 1))
        low, high = (low, share) if as_many > UNLIKELY else (share, high)
    return low


@contextlib.contextmanager
def _flattened(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Its elements in order, to be written to, whatever its strides are."""
    dense = tensor.contiguous()
    yield dense.view(-1)
    if dense is not tensor:
        tensor.copy_(dense)


def _is_sorted(tensor: torch.Tensor) -> bool:
    """Sorted integers are offsets: with a piece of another draw they no longer are, and an operator that trusts them
    reads memory that is not its own."""
    return not tensor.is_floating_point() and tensor.dim() > 0 and bool((tensor[..., 1:] >= tensor[..., :-1]).all())


def _mean(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same form that holds its mean everywhere."""
    if not tensor.numel():
        return tensor
    mean = float(tensor.mean(dtype=torch.float64))
    return torch.full_like(tensor, mean if tensor.is_floating_point() else round(mean))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to half of the digits, relative to the element and to the typical size of all."""
    if a.shape != b.shape or a.dtype != b.dtype or not b.is_floating_point():
        return _equal(a, b)
    near = torch.finfo(b.dtype).eps ** 0.5
    typical = float(torch.where(torch.isfinite(b), b, 0).double().pow(2).mean().sqrt()) if b.numel() else 0.0
    return compare("", a, b, b, Tolerance(mode="explicit", atol=near * typical, rtol=near)).ratio <= 1


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in form and values, where NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
