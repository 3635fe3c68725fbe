"""Values like the live ones: what parameters and buffers are filled with, and what get_inputs draws."""

from __future__ import annotations

import keyword
import textwrap
from typing import Any

import torch
from torch import nn

from cudaforge.capture.source import NotCaptured, literal

EXACT = 32
"""Tensors with no more elements are written down as they are."""
ALIKE = 0.05
"""A parameter whose mean, spread and range the constructor meets this closely is left to the constructor."""


def fill(bare: nn.Module, live: nn.Module) -> list[str]:
    """Lines at the end of Model's constructor that make `bare`, what it has made, like `live`. Raises NotCaptured."""
    mine, theirs = _tensors(bare), _tensors(live)
    if missing := sorted(theirs.keys() - mine.keys()):
        raise NotCaptured(f"what was written of it lacks {', '.join(missing[:3])}")
    if extra := sorted(mine.keys() - theirs.keys()):
        raise NotCaptured(f"what was written of it has {', '.join(extra[:3])}, which the module lacks")
    if set(bare.state_dict()) != set(live.state_dict()):
        raise NotCaptured("what was written of it has another state_dict")
    lines = _cast(mine, theirs)
    filled, done = [], set()
    for name, tensor in theirs.items():
        if mine[name].shape != tensor.shape:
            raise NotCaptured(
                f"{name} has the shape {tuple(tensor.shape)}, and its constructor gives {tuple(mine[name].shape)}"
            )
        if id(tensor) not in done:
            done.add(id(tensor))
            target = path(name, bare)
            filled += _filled(target, mine[name].detach(), tensor.detach(), isinstance(tensor, nn.Parameter))
    if filled:
        lines.append("        with torch.no_grad():")
        for line in filled:
            space = " " * 12
            wrapped = textwrap.wrap(line, 116, initial_indent=space, subsequent_indent=f"{space}    ")
            lines += [space + line] if "  # " in line else wrapped
    return [*lines, *_flags(bare, live)]


def get_inputs(inputs: list[Any]) -> list[str]:
    """The function that draws inputs of the shapes, dtypes and kinds of values that were seen. Raises NotCaptured."""
    body = []
    for value in inputs:
        told = ""
        if isinstance(value, torch.Tensor):
            told = f"  # {_kind(value)}{_seen(value)}"
        body.append(f"        {_drawn(value)},{told}")
    return ["def get_inputs():", "    return [", *body, "    ]"]


def path(name: str, root: nn.Module) -> str:
    """How a parameter, buffer or module of `root` is reached from inside of Model."""
    text, owner = "self", root
    for part in name.split("."):
        if isinstance(owner, nn.Sequential | nn.ModuleList) and part.isdecimal():
            text = f"{text}[{part}]"
        elif part.isidentifier() and not keyword.iskeyword(part):
            text = f"{text}.{part}"
        else:
            text = f"getattr({text}, {part!r})"
        owner = getattr(owner, part)
    return text


def tensor_literal(tensor: torch.Tensor) -> str:
    """A small tensor as source."""
    values = literal(_short(tensor.tolist(), tensor), "a tensor")
    return f"torch.tensor({values}, dtype={tensor.dtype})"


def _short(value: Any, tensor: torch.Tensor) -> Any:
    """Numbers with no more digits than the dtype tells apart."""
    if isinstance(value, list):
        return [_short(item, tensor) for item in value]
    digits = {torch.float32: 9, torch.float16: 5, torch.bfloat16: 5}.get(tensor.dtype, 17)
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(module.named_buffers(remove_duplicate=False))}


def _cast(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Where the live module was cast (`.half()`): the same cast."""
    differ = [name for name in theirs if mine[name].dtype != theirs[name].dtype]
    if not differ:
        return []
    floating = {tensor.dtype for tensor in theirs.values() if tensor.is_floating_point()}
    if len(floating) != 1 or any(not theirs[name].is_floating_point() for name in differ):
        raise NotCaptured(
            f"{differ[0]} is {theirs[differ[0]].dtype}, and its constructor gives {mine[differ[0]].dtype}"
        )
    return [f"        self.to({floating.pop()})"]


def _filled(target: str, mine: torch.Tensor, live: torch.Tensor, parameter: bool) -> list[str]:
    """The line that gives a tensor its values; none where the constructor's are the same, or of the same kind."""
    mine = mine.to(live)
    if torch.equal(mine, live) or (parameter and live.numel() > EXACT and _alike(mine, live)):
        return []
    if live.numel() and bool((live == live.flatten()[0]).all()):
        return [f"{target}.fill_({literal(live.flatten()[0].item(), target)})"]
    if live.numel() <= EXACT:
        return [f"{target}.copy_({tensor_literal(live)})"]
    if rule := _rule(live):
        return [f"{target}.copy_({rule})"]
    if live.dtype is torch.bool:
        return [f"{target}.bernoulli_({float(live.double().mean()):.4g})  # drawn: so many are true"]
    if live.is_complex() or not bool(torch.isfinite(live).all()):
        raise NotCaptured(f"the values of {target} can neither be written down nor drawn")
    low, high = (value.item() for value in torch.aminmax(live))
    if not live.is_floating_point():
        return [f"{target}.random_({low}, {high + 1})  # drawn, in the live range"]
    mean, spread = float(live.double().mean()), float(live.double().std())
    drawn = f"mean={mean:.6g}, std={spread:.6g}, a={low:.6g}, b={high:.6g}"
    return [f"nn.init.trunc_normal_({target}, {drawn})  # drawn, in the live range"]


def _alike(mine: torch.Tensor, live: torch.Tensor) -> bool:
    """Whether two random tensors are of one distribution, by mean, spread and range: an untrained parameter."""
    if not live.is_floating_point():
        return False
    a, b = mine.double(), live.double()
    spread = float(b.std())
    near = abs(float(a.mean() - b.mean())) <= 3 * ALIKE * spread and abs(float(a.std()) - spread) <= 2 * ALIKE * spread
    return near and all(abs(float(x - y)) <= spread for x, y in zip(torch.aminmax(a), torch.aminmax(b), strict=True))


def _rule(live: torch.Tensor) -> str:
    """Counting numbers and triangles, which masks and positions are; else empty."""
    if live.dim() and not live.is_complex() and live.dtype is not torch.bool:
        count = torch.arange(live.shape[-1], device=live.device).to(live.dtype)
        if torch.equal(live, count.expand_as(live)):
            return f"torch.arange({live.shape[-1]}).expand({tuple(live.shape)})"
    if live.dim() >= 2 and live.shape[-1] > 1 and live.shape[-2] > 1:
        above, below = live.reshape(-1, *live.shape[-2:])[0, 0, -1].item(), live.reshape(-1, *live.shape[-2:])[0, -1, 0]
        for diagonal in (0, 1):
            upper = torch.ones(live.shape, dtype=torch.bool, device=live.device).triu(diagonal)
            made = torch.where(upper, torch.full_like(live, above), below)
            if torch.equal(made, live):
                a, b = literal(above, "a mask"), literal(below.item(), "a mask")
                return (
                    f"torch.full({tuple(live.shape)}, {b}, dtype={live.dtype})"
                    f".masked_fill(torch.ones({tuple(live.shape)}, dtype=torch.bool).triu({diagonal}), {a})"
                )
    return ""


def _flags(bare: nn.Module, live: nn.Module) -> list[str]:
    """requires_grad of each parameter, and train or eval of each part."""
    lines = []
    made = {name: p.requires_grad for name, p in bare.named_parameters()}
    wanted = {name: p.requires_grad for name, p in live.named_parameters()}
    if wanted and not any(wanted.values()) and any(made.values()):
        lines.append("        self.requires_grad_(False)")
    else:
        lines += [
            f"        {path(name, bare)}.requires_grad_({flag})"
            for name, flag in wanted.items()
            if made.get(name) is not flag
        ]
    if not live.training:
        lines.append("        self.eval()")
    for name, part in live.named_modules():
        above = live.get_submodule(name.rpartition(".")[0])
        if name and part.training != above.training:
            lines.append(f"        {path(name, bare)}.train({part.training})")
    return lines


def _drawn(value: Any) -> str:
    """An expression that draws a value like this one."""
    if type(value) in (list, tuple):
        inner = ", ".join(_drawn(item) for item in value)
        return f"[{inner}]" if type(value) is list else f"({inner}{',' if len(value) == 1 else ''})"
    if not isinstance(value, torch.Tensor):
        return literal(value, "an input")
    value = value.detach()
    if type(value) is not torch.Tensor or value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise NotCaptured(f"an input is {_kind(value)}, which cannot be drawn")
    strides = value.stride()
    order = sorted(range(value.dim()), key=lambda dim: -strides[dim])
    if not value.is_contiguous() and value.permute(order).is_contiguous():  # transposed: drawn as it lies in memory
        back = tuple(order.index(dim) for dim in range(value.dim()))
        return f"{_drawn(value.permute(order))}.permute({back})"
    shape = ", ".join(map(str, value.shape)) if value.dim() else "()"
    if not value.numel():
        return f"torch.zeros({shape}, dtype={value.dtype})"
    if value.dtype is torch.bool:
        share = float(value.double().mean())
        return f"torch.rand({shape}) < {share:.4g}" if share < 1 else f"torch.ones({shape}, dtype=torch.bool)"
    if not bool(torch.isfinite(value).all()):
        raise NotCaptured("an input holds infinities or NaN")
    low, high = (bound.item() for bound in torch.aminmax(value))
    if not value.is_floating_point():
        dtype = "" if value.dtype is torch.int64 else f", dtype={value.dtype}"
        return f"torch.randint({low}, {high + 1}, {tuple(value.shape)}{dtype})"
    if low == high:
        return f"torch.full({tuple(value.shape)}, {low!r}, dtype={value.dtype})"
    dtype = "" if value.dtype is torch.float32 else f", dtype={value.dtype}"
    mean = float(value.double().mean())
    spread = float(value.double().std()) if value.numel() > 1 else 1.0
    if low >= 0 and high <= 1:
        return f"torch.rand({shape}{dtype})"
    slack = 0.05 + 3 / value.numel() ** 0.5
    if low < 0 < high and abs(mean) < slack and abs(spread - 1) < slack:
        return f"torch.randn({shape}{dtype})"
    if abs(spread - (high - low) / 12**0.5) < 0.1 * spread:  # uniform
        return f"torch.rand({shape}{dtype}) * {high - low:.6g} + {low:.6g}"
    return f"(torch.randn({shape}{dtype}) * {spread:.6g} + {mean:.6g}).clamp({low:.6g}, {high:.6g})"


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _seen(tensor: torch.Tensor) -> str:
    """The range that was seen, for the reader."""
    if not tensor.numel() or tensor.is_complex() or tensor.dtype is torch.bool:
        return ""
    low, high = (bound.item() for bound in torch.aminmax(tensor.detach()))
    return f", seen {low:.4g} ... {high:.4g}"
