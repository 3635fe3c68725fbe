"""From a live nn.Module and example tensors to a Task: a KernelBench-style file that stands on its own.

Two ways, in this order. `source.py` carries the module's own class over, with whatever it refers to; where that
cannot be, `traced.py` writes the module down as torch.fx traces it. `values.py` then makes parameters, buffers and
inputs like the live ones. What was written is executed here, the user's own code in the user's own process, and has to
give the live module's output on the example inputs; the engine executes it in a cage once more.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cudaforge.capture.source import NotCaptured, carry, literal
from cudaforge.errors import TaskError
from cudaforge.inuse import run_task
from cudaforge.task import MAX_TASK_BYTES, Task

if TYPE_CHECKING:
    import torch
    from torch import nn

HINT = (
    "Write a task file with Model, get_inputs and get_init_inputs instead, and pass its path; docs/python.md has one."
)
HEAD = "Written by CudaForge from a live module"
"""How the first line of a written file begins; one that begins otherwise is the user's, and is not replaced."""


def capture(
    module: nn.Module,
    inputs: torch.Tensor | Sequence[Any],
    *,
    init: Sequence[Any] | Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Task:
    """Writes down a live module as a Task; nothing is stored.

    Args:
        module: what a kernel is wanted for. It is copied, never changed.
        inputs: the arguments of its forward, a tensor alone or a sequence, with the shapes, dtypes and kinds of
            values that matter. Tensors, numbers, strings, None, and lists or tuples of them.
        init: the constructor's arguments, in order or by name, for the file's get_init_inputs. Without it they are
            taken from attributes of the same name where the module keeps them.
        name: of the task; by default the class's, in snake case.

    Returns:
        A Task whose Model has the live module's parameters and buffers: names, shapes, dtypes, requires_grad, train or
        eval mode. Values are exact up to 32 elements and where they follow a plain rule (constant, counting,
        triangular); others are drawn with the live tensor's mean and spread, inside of its range.

    Raises:
        TaskError: with what stands in the way, in one sentence: hooks, keyword arguments, control flow that depends
            on values where the source is not at hand, or a file whose output differs from the module's.
    """
    import torch
    from torch import nn

    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise TaskError(f"A {kind} is not an nn.Module.", "Pass a module, a Task, or the path of a task file.")
    if isinstance(inputs, Mapping):
        raise TaskError(f"{kind} cannot be captured with keyword arguments of forward.", f"Pass a tuple. {HINT}")
    arguments = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    _refuse_hooks(module)
    if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
        raise TaskError(f"{kind} is compiled and cannot be captured.", "Pass the module that it was made of.")
    try:
        live = copy.deepcopy(module)
    except Exception as error:
        raise TaskError(f"{kind} cannot be captured, it cannot be copied: {_said(error)}", HINT) from None
    name = re.sub(r"\W", "_", name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower())
    reasons = []
    for way in (_by_source, _by_trace):
        try:
            source = way(live, arguments, init)
            break
        except NotCaptured as error:
            reasons.append(str(error))
    else:
        own, traced = reasons
        raise TaskError(f"{kind} cannot be captured: {own}; and {traced}.", HINT)
    if len(source.encode()) > MAX_TASK_BYTES:
        raise TaskError(f"{kind} cannot be captured: its file would be larger than {MAX_TASK_BYTES} bytes.", HINT)
    return Task.parse(source, name=name, file=f"{name}.py")


def _by_source(live: nn.Module, inputs: list[Any], init: Sequence[Any] | Mapping[str, Any] | None) -> str:
    """The file with the module's own class. Raises NotCaptured."""
    cls = type(live)
    arguments = _init_arguments(live, init)
    carried = carry(cls, arguments)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    named = [p.name if p.kind is p.POSITIONAL_OR_KEYWORD else f"argument{i}" for i, p in enumerate(parameters)]
    passed = ", ".join((named + [f"argument{i}" for i in range(len(named), len(arguments))])[: len(arguments)])
    head = [
        *carried.text,
        "",
        "",
        f"class Model({carried.name}):",
        f'    """{cls.__name__} as it was when it was captured."""',
        "",
        f"    def __init__(self{', ' + passed if passed else ''}):",
        f"        super().__init__({passed})",
    ]
    listed = ", ".join(carried.arguments)
    return _complete(live, inputs, head, [], listed, "its own class", future=carried.future)


def _by_trace(live: nn.Module, inputs: list[Any], init: Sequence[Any] | Mapping[str, Any] | None) -> str:
    """The file as torch.fx sees the module. Raises NotCaptured."""
    from cudaforge.capture.traced import write

    head, after, docstring = write(live)
    return _complete(live, inputs, head, after, "", docstring)


def _complete(
    live: nn.Module,
    inputs: list[Any],
    head: list[str],
    after: list[str],
    init: str,
    how: str,
    *,
    future: bool = False,
) -> str:
    """The whole file, checked. `head` ends in Model's constructor, `after` holds its other methods."""
    from cudaforge.capture import values

    ending = [*values.get_inputs(inputs), "", "", "def get_init_inputs():", f"    return [{init}]", ""]
    start = [
        f'"""{HEAD} of the class {type(live).__name__}, from {how}.',
        "",
        "Shapes, dtypes and names are those of the live module and of its example inputs. Values are exact up to",
        f"{values.EXACT} elements; larger tensors are drawn with the live mean and spread, inside of the live range.",
        '"""',
        "",
        *(["from __future__ import annotations", ""] if future else []),
        "import torch",
        "from torch import nn",
    ]

    def file(filled: list[str]) -> str:
        return "\n".join([*start, *head, *filled, *(["", *after] if after else []), "", "", *ending])

    bare = _run(file([]), live)
    source = file(values.fill(bare, live))
    _compare(live, _run(source, live), inputs)
    return source


def _run(source: str, live: nn.Module) -> nn.Module:
    """The Model that a file makes, on the live module's device. Raises NotCaptured."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device(_device(live)):
            scope = run_task(source, "<captured>")
            model = scope["Model"](*scope["get_init_inputs"]())
            scope["get_inputs"]()
    except Exception as error:
        raise NotCaptured(f"what was written of it does not run ({_said(error)})") from None
    if not isinstance(model, torch.nn.Module):
        raise NotCaptured("what was written of it is no nn.Module")
    return model


def _compare(live: nn.Module, model: nn.Module, inputs: list[Any]) -> None:
    """Whether the written Model has the live parts and, with the live values in it, the live output. Raises
    NotCaptured."""
    import torch
    from torch.utils import _pytree as pytree

    # An argument that the constructor keeps under another name may show in no output of a few example inputs.
    mine, theirs = (dict(module.named_modules()) for module in (model, live))
    for name in sorted(mine.keys() & theirs.keys() - {""}):
        own, wanted = mine[name], theirs[name]
        if type(own).__name__ == type(wanted).__name__ and own.extra_repr() != wanted.extra_repr():
            raise NotCaptured(f"its {name} came out with ({own.extra_repr()}), not ({wanted.extra_repr()})")

    with torch.no_grad():
        for (name, there), (_, here) in zip(_named(live), _named(model), strict=True):
            if there.shape != here.shape or there.dtype != here.dtype:
                raise NotCaptured(f"{name} came out as {here.dtype} of shape {tuple(here.shape)}")
            here.copy_(there)

    gpus = [device] if (device := _device(live)).type == "cuda" else []

    def run(module: nn.Module) -> list[Any]:
        with torch.random.fork_rng(devices=gpus), torch.no_grad():
            torch.manual_seed(0)  # dropout in train mode
            leaves: list[Any] = pytree.tree_leaves(copy.deepcopy(module)(*copy.deepcopy(inputs)))
            return leaves

    try:
        wanted = run(live)
    except Exception as error:
        raise TaskError(
            f"{type(live).__name__} fails on the example inputs: {_said(error)}", "Pass what its forward takes."
        ) from None
    try:
        found = run(model)
    except Exception as error:
        raise NotCaptured(f"what was written of it fails on the example inputs ({_said(error)})") from None
    if len(found) != len(wanted):
        raise NotCaptured(f"what was written of it gives {len(found)} outputs where the module gives {len(wanted)}")
    for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                raise NotCaptured(f"output {index} came out as {b.dtype} of shape {tuple(b.shape)}")
            slack = 1e-4 if a.dtype in (torch.float32, torch.float64) else 1e-2
            finite = a[torch.isfinite(a)] if a.is_floating_point() else a[:0]
            scale = float(finite.abs().max()) if finite.numel() else 0.0
            if not torch.allclose(a, b, rtol=slack, atol=slack * scale, equal_nan=True):
                worst = float((a.double() - b.double()).abs().max())
                raise NotCaptured(f"output {index} of what was written of it is off by up to {worst:.3g}")
        elif type(a) is not type(b) or (not isinstance(a, torch.Tensor) and a != b):
            raise NotCaptured(f"output {index} of what was written of it is another one")


def _named(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, sorted, those under several names each time."""
    found = dict(module.named_parameters(remove_duplicate=False))
    return sorted((found | dict(module.named_buffers(remove_duplicate=False))).items())


def _device(module: nn.Module) -> torch.device:
    import torch

    return next((tensor.device for _, tensor in _named(module)), torch.device("cpu"))


def _init_arguments(live: nn.Module, init: Sequence[Any] | Mapping[str, Any] | None) -> list[Any]:
    """The constructor's arguments in order: as given, else from attributes of the same name. Raises NotCaptured."""
    cls = type(live).__name__
    signature = inspect.signature(type(live).__init__)
    if init is not None:
        try:
            bound = signature.bind(None, **init) if isinstance(init, Mapping) else signature.bind(None, *tuple(init))
        except TypeError as error:
            raise TaskError(
                f"init does not fit {cls}'s constructor: {error}.", "Pass its arguments in order."
            ) from None
        bound.apply_defaults()
        if bound.kwargs and isinstance(init, Mapping) and set(bound.kwargs) & set(init):
            raise TaskError(f"{cls}'s constructor has keyword-only arguments, which a task cannot pass.", HINT)
        return list(bound.args)[1:] if isinstance(init, Mapping) else list(init)
    arguments: list[Any] = []
    for parameter in [*signature.parameters.values()][1:]:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise NotCaptured(f"its constructor wants {parameter.name} by keyword")
            break
        value = getattr(live, parameter.name, parameter.default)
        try:
            if not dataclasses.is_dataclass(value):
                literal(value, parameter.name)
        except NotCaptured:
            value = parameter.default
        if value is parameter.empty:
            raise NotCaptured(f"its constructor's {parameter.name} is not known (pass init=)")
        arguments.append(value)
    return arguments


def _refuse_hooks(module: nn.Module) -> None:
    for path, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            where = f"its part {path}" if path else "it"
            raise TaskError(
                f"{type(module).__name__} cannot be captured: {where} has forward hooks, which no kernel would run.",
                f"Remove them, or put what they do into forward. {HINT}",
            )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
