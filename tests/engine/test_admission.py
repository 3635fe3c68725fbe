"""Admission: which cheap answers would pass, and which bytes matter."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cudaforge.engine.admission import RANDOM, UNLIKELY, Admission, at_least, examine
from cudaforge.task import Tolerance

CALIBRATED = Tolerance()
KERNELBENCH = Tolerance(mode="kernelbench")
Forward = Callable[..., Any]


def shown(found: Admission, nbytes: int, flags: tuple[str, ...] = ()) -> bool:
    """Whether these are the flags, and no more bytes count than matter, and not many fewer."""
    assert found.flags == flags
    assert 0.75 * nbytes <= found.live_bytes <= nbytes
    return True


def double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(double(v) for v in value)
    return value


def ask(
    forward: Forward,
    make: Callable[[], list[Any]],
    tolerance: Tolerance = CALIBRATED,
    exact: Forward | None = None,
    without_float64: bool = False,
) -> Admission:
    def outputs(out: Any) -> list[torch.Tensor]:
        return list(out) if isinstance(out, list | tuple) else [out]

    torch.manual_seed(0)
    inputs, others = make(), make()
    wide = exact or forward
    with torch.inference_mode():
        return examine(
            lambda values: outputs(forward(*values)),
            None if without_float64 else lambda values: outputs(wide(*double(values))),
            inputs,
            others,
            tolerance,
        )


def test_a_linear_layer_has_no_flags_and_all_of_it_matters() -> None:
    x, w = (64, 48), (32, 48)
    for exact in (False, True):
        found = ask(torch.nn.functional.linear, lambda: [torch.rand(x), torch.randn(w)], without_float64=exact)
        assert shown(found, 4 * (64 * 48 + 32 * 48))


def test_zeros_pass_where_a_softmax_is_flatter_than_the_tolerance() -> None:
    softmax = lambda x: x.softmax(-1)  # noqa: E731
    make = lambda: [torch.rand(4, 65_536)]  # noqa: E731
    found = ask(softmax, make, KERNELBENCH)
    assert {"zeros would pass", "a constant would pass"} <= set(found.flags)
    assert "half of dimension 1 of input 0 would pass" in found.flags
    assert "the output does not depend on the inputs at all" in found.flags
    assert found.live_bytes > 0.75 * 4 * 4 * 65_536, "it does depend, below what the tolerance sees"
    assert ask(softmax, make, Tolerance(mode="explicit", atol=1e-3)).flags == found.flags
    assert ask(softmax, make).flags == ()


def test_a_single_number_is_no_constant_unless_other_inputs_give_it_too() -> None:
    loss = lambda a, b: (a - b).pow(2).mean()  # noqa: E731
    assert ask(loss, lambda: [torch.rand(8, 8), torch.rand(8, 8)]).flags == ()
    many = ask(loss, lambda: [torch.rand(1024, 1024), torch.rand(1024, 1024)], Tolerance(mode="explicit", rtol=0.01))
    assert "a constant would pass" in many.flags and "zeros would pass" not in many.flags


def test_the_identity_is_flagged() -> None:
    assert ask(lambda x: x * 1.0, lambda: [torch.randn(64, 64)]).flags == ("input 0 itself would pass",)
    assert ask(torch.relu, lambda: [torch.rand(64, 64)]).flags == ("input 0 itself would pass",)
    assert ask(torch.relu, lambda: [torch.randn(64, 64)]).flags == ()


def test_dropout_is_random_and_asked_nothing_else() -> None:
    found = ask(lambda x: torch.nn.functional.dropout(x, 0.5), lambda: [torch.randn(64, 64)])
    assert found == Admission((RANDOM + "two runs on the same input differ",), 4 * 64 * 64)


def test_noise_within_the_tolerance_is_not_random() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        scale = 1 + 1e-6 * torch.rand((), dtype=x.dtype) if x.dtype == torch.float32 else 1
        return x.sum(1) * scale

    found = ask(noisy, lambda: [torch.rand(64, 256)])
    assert shown(found, 4 * 64 * 256)


def test_an_unused_input_is_named_and_does_not_count() -> None:
    found = ask(lambda x, h: x * 2, lambda: [torch.randn(64, 64), torch.randn(128, 64)])
    assert shown(found, 4 * 64 * 64, ("the output does not depend on input 1",))


def test_a_constant_task_is_named() -> None:
    found = ask(lambda x: (x.amax(1) - x.amax(1)).clamp(max=0), lambda: [torch.randn(64, 64)])
    assert {"zeros would pass", "the output does not depend on the inputs at all"} <= set(found.flags)
    assert "the output does not depend on input 0" not in found.flags
    assert found.live_bytes == 0


def test_half_of_a_dimension_that_is_never_read() -> None:
    def first_half(x: torch.Tensor) -> torch.Tensor:
        return x[:, :32].exp()

    found = ask(first_half, lambda: [torch.randn(64, 64)])
    assert found.flags == ("half of dimension 1 of input 0 would pass",)
    assert 4 * 64 * 32 / 3 < found.live_bytes <= 4 * 64 * 32
    # Where zero does not occur, the half is blanked with what does: the logarithm of zero would show.
    found = ask(lambda x: x[:, :32].log() + 0 * x[:, 32:].log(), lambda: [torch.rand(64, 64) + 0.1])
    assert found.flags == ("half of dimension 1 of input 0 would pass",)


def test_the_last_step_of_a_sequence() -> None:
    found = ask(lambda x: x[:, -1].exp(), lambda: [torch.randn(32, 50, 8)])
    assert found.live_bytes <= 4 * 32 * 8


def test_an_embedding_counts_its_indices_and_the_rows_that_they_name() -> None:
    def make() -> list[Any]:
        return [torch.randint(50, (16, 64)), torch.randn(100, 32)]

    found = ask(lambda i, table: table[i], make)
    assert found.flags == ("half of dimension 0 of input 1 would pass",)
    assert 0.4 * (8 * 16 * 64 + 4 * 50 * 32) <= found.live_bytes < 8 * 16 * 64 + 4 * 50 * 32


def test_nested_inputs_other_leaves_and_several_outputs() -> None:
    def forward(pair: tuple[Any, list[Any]], factor: float, mode: str, mask: Any) -> Any:
        a, (b,) = pair
        assert mode == "add" and isinstance(pair, tuple)
        return a * factor, (a + b).masked_fill(mask, 0), a > 0

    def make() -> list[Any]:
        return [(torch.randn(32, 64), [torch.randn(32, 64)]), 1.0, "add", torch.rand(32, 64) > 0.5]

    found = ask(forward, make)
    assert not found.flags and 0.4 * (4 * 2 * 32 * 64 + 32 * 64) < found.live_bytes < 4 * 2 * 32 * 64 + 32 * 64


def test_an_input_of_the_same_value_for_every_seed_is_not_called_unused() -> None:
    found = ask(lambda x, scale: x * scale, lambda: [torch.randn(64, 64), torch.full((64,), 3.0)])
    assert shown(found, 4 * 64 * 64)
    found = ask(lambda x: x * 2, lambda: [torch.ones(64)])
    assert "the output does not depend on the inputs at all" not in found.flags


def test_a_reference_that_works_in_place_is_given_copies() -> None:
    torch.manual_seed(0)
    inputs, others = [torch.randn(64, 64)], [torch.randn(64, 64)]
    before = [inputs[0].clone(), others[0].clone()]
    found = examine(lambda v: [v[0].exp_()], lambda v: [v[0].double().exp_()], inputs, others, CALIBRATED)
    assert shown(found, 4 * 64 * 64)
    assert torch.equal(inputs[0], before[0]) and torch.equal(others[0], before[1])


def test_what_raises_on_a_manipulated_input_does_not_pass() -> None:
    def positive(x: torch.Tensor) -> torch.Tensor:
        if bool((x == x.min()).sum() > 1):
            raise ValueError("blanked")
        return x.sum(1)

    found = ask(positive, lambda: [torch.randn(16, 64) + 9])
    assert shown(found, 4 * 16 * 64)
    with pytest.raises(ValueError, match="always"):
        ask(always_raises, lambda: [torch.randn(8)])


def always_raises(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("always")


def test_sorted_offsets_are_never_cut() -> None:
    def bag(offsets: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        assert bool((offsets[1:] >= offsets[:-1]).all())
        return torch.cumsum(x, 0)[offsets]

    def make() -> list[Any]:
        return [torch.randint(4096, (512,)).sort().values, torch.randn(4096)]

    assert ask(bag, make).live_bytes <= 4 * 4096


def test_the_number_of_runs_is_bounded() -> None:
    runs = 0

    def count(values: list[Any]) -> list[torch.Tensor]:
        nonlocal runs
        runs += 1
        return [torch.stack([v.sum() for v in values])]

    inputs, others = ([torch.randn(4, 4, 4, 4, 4) for _ in range(30)] for _ in range(2))
    examine(count, None, inputs, others, CALIBRATED)
    assert runs <= 3 + 16 + 24 + 64 + 16


def test_no_more_counts_than_a_kernel_has_to_read() -> None:
    """Of half of a matrix, and of the rows of a table that are gathered."""
    found = ask(lambda a, x: a.tril() @ x, lambda: [torch.randn(256, 256), torch.randn(256, 8)])
    assert 4 * 256 * 256 / 4 < found.live_bytes < 4 * 256 * 256 / 2 + 4 * 256 * 8
    found = ask(lambda t, i: (t @ t.T)[i], lambda: [torch.randn(2048, 64), torch.randint(2048, (16,))])
    assert found.live_bytes <= 4 * 2048 * 64, "all columns of the product need all rows"
    found = ask(lambda t, i: t.exp()[i], lambda: [torch.randn(65_536, 64), torch.randint(65_536, (64,))])
    assert found.live_bytes <= 4 * 64 * 64 + 8 * 64


def test_every_element_of_a_maximum_matters() -> None:
    """Another draw of a few elements hardly ever changes it; the input's largest value there does."""
    for reduce in (torch.amax, torch.argmin):
        assert shown(ask(lambda x, reduce=reduce: reduce(x, 1), lambda: [torch.randn(64, 4096)]), 4 * 64 * 4096)


def test_the_steps_of_a_search_in_sorted_values_are_not_counted_as_reads() -> None:
    """A right kernel may search in another way. So sorted values get no extremes."""

    def make() -> list[Any]:
        return [torch.randn(1024).sort().values, torch.randn(16)]

    assert ask(torch.searchsorted, make).live_bytes < 512, "with extremes it would be half as much again"


def test_what_makes_the_reference_fail_shows_nothing() -> None:
    def parts(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.sum() for part in x.split(lengths.tolist())])

    def make() -> list[Any]:
        longer = torch.randint(1, 8, (512,))
        same = torch.arange(8 * 1024.0)
        return [same, torch.stack([8 + longer, 8 - longer], 1).flatten()[torch.randperm(1024)]]

    assert ask(parts, make).live_bytes <= 8 * 1024 / 8, "of one sector alone, the sum is seldom the same"


def test_the_share_that_is_shown_is_a_lower_bound() -> None:
    assert at_least(0, 64) == 0.0
    assert at_least(64, 64) == pytest.approx(UNLIKELY ** (1 / 64), abs=1e-6)
    rng = random.Random(1)
    for share in (0.02, 0.5, 0.97):
        drawn = [sum(rng.random() < share for _ in range(64)) for _ in range(2000)]
        too_high = sum(at_least(k, 64) > share for k in set(drawn) for _ in range(drawn.count(k)))
        assert too_high <= 10, f"{too_high} of 2000 above {share}"


def test_structures_must_agree() -> None:
    with pytest.raises(ValueError, match="structure"):
        examine(lambda v: [v[0]], None, [torch.ones(4)], [], CALIBRATED)
