"""A module as torch.fx traces it: standard submodules by their constructors, and a forward that one can read."""

from __future__ import annotations

import inspect
import keyword
import math
import re
import types
from typing import Any

import torch
from torch import fx, nn

from cudaforge.capture.source import NotCaptured, literal
from cudaforge.capture.values import EXACT, path, tensor_literal


def write(live: nn.Module) -> tuple[list[str], list[str], str]:
    """Lines up to the end of Model's constructor, lines of its forward, and how it was done. Raises NotCaptured.

    `live` is a copy that may be changed: the tracer keeps constants on it.
    """
    if whole := constructor(live):
        kind, _, arguments = whole.partition("(")
        head = ["", "", f"class Model({kind}):", "    def __init__(self):", f"        super().__init__({arguments}"]
        return head, [], "its constructor's arguments"
    names = {id(tensor): name for name, tensor in live.named_buffers()}
    leaves = {id(part) for part in live.modules() if constructor(part)}
    try:
        graph = _Tracer(leaves).trace(live)
    except Exception as error:
        why = " ".join(str(error).split())[:160]
        raise NotCaptured(f"torch.fx cannot trace it ({why})") from None
    declared = _declared(live, live, "", {})
    declared += _tied(live)
    for node in graph.nodes:
        node.type = None  # annotations that were text would be names that nothing defines
        target = str(node.target)
        if node.op == "get_attr" and target.startswith("_tensor_constant"):
            value = getattr(live, target)
            if value.numel() > EXACT or id(value) in names:
                raise NotCaptured(f"its forward uses a tensor of {value.numel()} elements that is no buffer")
            declared.append(f"        self.{target} = {tensor_literal(value)}")
            delattr(live, target)
    code = graph.python_code("self")
    body = [re.sub(r";\s+(?:\w+ = )+None\s*$", "", line) for line in code.src.strip().splitlines()]
    start = next(i for i, line in enumerate(body) if line.startswith("def forward"))
    forward = [f"    {line}".rstrip() for line in body[start:] if line.strip()]
    names_used = set(re.findall(r"\b[A-Za-z_]\w*", "\n".join(forward)))
    imports = [_import(name, value) for name, value in sorted(code.globals.items()) if name in names_used - {"torch"}]
    head = [*imports, "", "", "class Model(nn.Module):"]
    head += ["    def __init__(self):", "        super().__init__()", *declared]
    return head, forward, "what torch.fx traces of it"


class _Tracer(fx.Tracer):
    """Stops at modules that a constructor call can make again; goes into all others."""

    def __init__(self, leaves: set[int]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self.leaves


def constructor(module: nn.Module) -> str:
    """A call that makes a standard module again, `nn.Linear(in_features=3, ...)`; empty where there is none."""
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind or kind is nn.Module:
        return ""
    if kind is nn.Sequential:
        parts = [constructor(part) for part in module.children()]
        numbered = [name for name, _ in module.named_children()] == [str(i) for i in range(len(parts))]
        return f"nn.Sequential({', '.join(parts)})" if parts and all(parts) and numbered else ""
    for call in (_by_repr(module), _by_attributes(module)):
        if call and _makes(call, module):
            return call
    return ""


def _by_repr(module: nn.Module) -> str:
    text = repr(module)
    return f"nn.{text}" if "\n" not in text else ""


def _by_attributes(module: nn.Module) -> str:
    """By the constructor's parameters, which standard modules keep under the same names."""
    arguments = []
    for parameter in [*inspect.signature(type(module).__init__).parameters.values()][1:]:
        if parameter.name in ("device", "dtype") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = getattr(module, parameter.name, parameter.default)
        if parameter.name == "bias":
            value = value is not None and value is not False
        try:
            arguments.append(f"{parameter.name}={literal(value, parameter.name)}")
        except NotCaptured:
            return ""
    return f"nn.{type(module).__name__}({', '.join(arguments)})"


def _makes(call: str, module: nn.Module) -> bool:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            made = eval(call, {"nn": nn, "torch": torch, "inf": math.inf})
    except Exception:
        return False

    def shape(m: nn.Module) -> dict[str, Any]:
        return {name: tensor.shape for name, tensor in m.state_dict().items()}

    return type(made) is type(module) and repr(made) == repr(module) and shape(made) == shape(module)


def _declared(root: nn.Module, module: nn.Module, at: str, seen: dict[int, str]) -> list[str]:
    """Lines that declare what a module of `root` holds: submodules, its own parameters and buffers."""
    lines = []
    owner = path(at, root) if at else "self"
    for name, child in module._modules.items():
        if child is None:
            lines.append(f"        {owner}.{name} = None")
            continue
        full = f"{at}.{name}" if at else name
        empty = f"nn.{type(child).__name__}()" if type(child) in (nn.Sequential, nn.ModuleList) else "nn.Module()"
        made = seen.get(id(child)) or constructor(child) or empty
        plain = name.isidentifier() and not keyword.iskeyword(name)
        lines.append(f"        {owner}.{name} = {made}" if plain else f"        {owner}.add_module({name!r}, {made})")
        if made == empty:
            lines += _declared(root, child, full, seen)
        seen[id(child)] = path(full, root)
    for name, parameter in module._parameters.items():
        made = "None" if parameter is None else f"nn.Parameter({_zeros(parameter)})"
        lines.append(
            f"        {owner}.register_parameter({name!r}, {made})"
            if parameter is None
            else f"        {owner}.{name} = {made}"
        )
    for name, buffer in module._buffers.items():
        if not name.startswith("_tensor_constant"):
            kept = ", persistent=False" if name in module._non_persistent_buffers_set else ""
            made = "None" if buffer is None else _zeros(buffer)
            lines.append(f"        {owner}.register_buffer({name!r}, {made}{kept})")
    return lines


def _zeros(tensor: torch.Tensor) -> str:
    dtype = "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"
    return f"torch.zeros({tuple(tensor.shape)}{dtype})"


def _tied(live: nn.Module) -> list[str]:
    """Parameters that are one under several names."""
    first: dict[int, str] = {}
    lines = []
    for name, parameter in live.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)
        if known != name:
            lines.append(f"        {path(name, live)} = {path(known, live)}")
    return lines


def _import(name: str, value: Any) -> str:
    """What makes a name of the traced code mean the same in the file."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else "")
    if value is type(None):
        return f"{name} = type(None)"
    if isinstance(value, float | torch.dtype):
        return f"{name} = {literal(value, name)}"
    home, own = getattr(value, "__module__", ""), getattr(value, "__name__", "")
    if home.split(".")[0] in ("torch", "operator", "_operator", "math", "builtins") and own:
        return f"from {home.lstrip('_')} import {own}" + (f" as {name}" if own != name else "")
    raise NotCaptured(f"its forward uses {name}, a {type(value).__name__}, which cannot be written down")
