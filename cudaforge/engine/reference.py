"""The reference's process: runs the task. Makes inputs, parameters and expected outputs; makes calls that are timed.

The task is a user's file, so this process is confined like a candidate's; but it may run compilers, which
torch.compile needs. Inputs and outputs go into memory that the supervisor lends.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import socket
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from cudaforge.engine import recipes
from cudaforge.engine.candidate import RUNNER_HANDLERS, Runner
from cudaforge.engine.protocol import Channel, digest_of, leaves, pack, serve, spec_of, unpack

FEW = 256
"""Elements of an input that are enough for moving them around to make another input."""
ODD = 0x9E3779B97F4A7C15
PERIODS, LEAST_PULL = (4093, 4099), 0.025
"""Where drawn values are used again, each is pulled towards zero by shares of its own: two lists of these lengths, both
from this share to twice as much. Their product repeats after 16 million elements, so that no sum, norm or order of the
drawn values is a multiple of that of the pulled ones."""
RUNNING_STATISTICS = ("running_mean", "running_var")
"""Buffers that are perturbed like parameters; others may hold constants that a kernel may rely on."""


class Reference(Runner):
    """Handlers of the supervisor's messages."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None
        self.module = types.ModuleType("cudaforge_task")
        self.model: torch.nn.Module = torch.nn.Identity()
        self.pristine: dict[str, torch.Tensor] = {}
        self.trained: set[str] = set()
        self.supports: list[recipes.Support] = []
        self.allowed: tuple[float, float] | None = None
        """The range of inputs that the task's metadata states."""

    def function(self, what: str) -> Any:
        """`eager`, `compile:MODE`, or `nothing`: one tiny kernel, to find the clock's constant."""
        if what == "eager":
            return self.model
        if what == "nothing":
            counter = torch.zeros(32, device=self.device)
            return lambda: counter.add_(1)
        torch._dynamo.reset()
        mode = what.removeprefix("compile:")
        return torch.compile(self.model, mode=None if mode == "default" else mode, dynamic=False)

    def load(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Executes the task's file with the workload's overrides and constructs Model from a seed, with the task's
        arguments or with those that were lent.

        Returns the constructor's arguments, parameters and buffers as specs.
        """
        self.device = message["device"]
        self.dtype = getattr(torch, message["dtype"]) if message["dtype"] else None
        torch.backends.cuda.matmul.allow_tf32 = message["allow_tf32"]
        torch.backends.cudnn.allow_tf32 = message["allow_tf32"]
        namespace = self.module.__dict__
        sys.modules[self.module.__name__] = self.module  # dataclasses look their module up
        exec(compile(message["source"], message["file"], "exec"), namespace)
        if message["overrides"]:
            # Names that depend on an overridden one are computed again: overrides stand in for the assignment.
            source = _override(message["source"], message["overrides"])
            namespace.clear()
            namespace["__name__"] = "cudaforge_task"
            exec(compile(source, message["file"], "exec"), namespace)
        torch.manual_seed(message["init_seed"])
        with torch.device(self.device):
            self.init = self.module.get_init_inputs()
            if "init" in message:
                self.init = self._as_lent(message)
            torch.manual_seed(message["init_seed"])
            self.model = self.module.Model(*self.init).to(self.device)
        if self.dtype is not None:
            self.model = self.model.to(self.dtype)
        tensors: list[torch.Tensor] = []
        init_tree = pack(list(self.init), tensors)
        self.init_tensors = tensors
        self.named = [*self.model.named_parameters(), *self.model.named_buffers()]
        self.pristine = {name: tensor.detach().clone() for name, tensor in self.named}
        self.trained = {name for name, _ in self.model.named_parameters()}
        return {
            "init": init_tree,
            "init_specs": [spec_of(t) for t in tensors],
            "parameters": [
                [name, *spec_of(tensor), name in self.trained, digest_of(tensor), self._varied(name, tensor)]
                for name, tensor in self.named
            ],
        }

    def _varied(self, name: str, value: torch.Tensor) -> bool:
        """Whether it is constant at construction and gets random values in trials: a weight of ones, a bias of zeros, a
        running mean."""
        known = name in self.trained or name.rpartition(".")[2] in RUNNING_STATISTICS
        return known and value.is_floating_point() and _constant(value)

    def _as_lent(self, message: dict[str, Any]) -> Any:
        """The constructor's arguments with the values that were lent: the task's own objects where only tensors may
        differ, since a tree knows no more than lists, tuples and plain tensors."""
        lent = self.borrowed.tensors("init", message["init_slots"])
        own: list[torch.Tensor] = []
        if pack(list(self.init), own) != message["init"]:
            return unpack(message["init"], [tensor.clone() for tensor in lent])
        for mine, theirs in zip(own, lent, strict=True):
            mine.data.copy_(theirs)
        return self.init

    def give_init(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Writes tensors among the constructor's arguments to the lent buffer."""
        for tensor, lent in zip(self.init_tensors, self.borrowed.tensors("init", message["slots"]), strict=True):
            lent.copy_(tensor)
        self._synchronize()
        return {}

    def give_parameters(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Writes parameters and buffers to the lent buffer; `pristine`: as the constructor left them, for a twin."""
        values = self.pristine.values() if message["pristine"] else [tensor.detach() for _, tensor in self.named]
        for value, lent in zip(values, self._lent_parameters(message), strict=True):
            lent.copy_(value)
        self._synchronize()
        return {}

    def take_parameters(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A twin: takes them for its own."""
        for value, lent in zip(self.pristine.values(), self._lent_parameters(message), strict=True):
            value.copy_(lent)
        self._synchronize()
        return {}

    def set_parameters(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A twin: parameters as the reference makes them for trials with this seed."""
        self._set_parameters(message["parameter_seed"])
        return {}

    def _lent_parameters(self, message: dict[str, Any]) -> list[torch.Tensor]:
        return self.borrowed.tensors("parameters", message["slots"])

    def describe(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Runs once: specs of inputs and outputs, operations, whether float64 works, what values the inputs have."""
        started = time.perf_counter()
        draws = [self._make_inputs(seed) for seed in message["seeds"]]
        self._synchronize()
        inputs_s = (time.perf_counter() - started) / len(draws)
        inputs = draws[0]
        versions = [t._version for t in _packed(inputs)[1]]
        with torch.inference_mode():
            with _flop_counter() as counter:
                out = self.model(*inputs)
            flops = counter.get_total_flops()
            tensors: list[torch.Tensor] = []
            tree = pack(out, tensors)
            result = {"outputs": leaves(tree), "output_specs": [spec_of(t) for t in tensors]}
            why = ""
            try:
                self._expected64(inputs)
            except Exception as error:  # the task's own code: any operator may lack float64
                why = f"{type(error).__name__}: {error}"[:300]
        packed = [_packed(draw) for draw in draws]
        self.allowed = tuple(message["input_range"]) if message["input_range"] else None
        self.supports = [
            recipes.observe(list(leaf), self.allowed) for leaf in zip(*(t for _, t in packed), strict=True)
        ]
        if any(tree != packed[0][0] for tree, _ in packed):
            raise ValueError("get_inputs gives other numbers, strings or structures from one seed to the next")
        if versions != [t._version for t in packed[0][1]]:
            raise ValueError("Model.forward changes its inputs in place")
        if odd := sorted({str(t.dtype) for t in (*packed[0][1], *tensors) if not _is_supported(t.dtype)}):
            raise ValueError(f"inputs or outputs of {', '.join(odd)} are not supported")
        result |= {"inputs": packed[0][0], "input_specs": [spec_of(t) for t in packed[0][1]]}
        movable = any(not s.fixed and t.numel() >= FEW for s, t in zip(self.supports, packed[0][1], strict=True))
        self._synchronize()
        return {
            **result,
            "movable": movable,
            "flops": flops,
            "no_float64": why,
            "inputs_s": inputs_s,
        }

    def make(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One trial: inputs and parameters from seeds, shaped by a recipe, and what is expected of them.

        A recipe for which the reference itself gives values that are not finite is not used, unless the task states
        the range of its inputs: it does not mean such inputs. Returns the recipe that was.
        """
        recipe = message["recipe"]
        self._set_parameters(message["parameter_seed"])
        inputs = self._make_inputs(message["seed"], recipe)
        if recipe != recipes.NATURAL and not self.allowed and not self._finite(inputs):
            recipe = recipes.NATURAL
            inputs = self._make_inputs(message["seed"])
        self._lend(message["set"], inputs)
        lent = self.borrowed.tensors("parameters", message["parameter_slots"])
        for (_, tensor), mine in zip(self.named, lent, strict=True):
            mine.copy_(tensor.detach())
        self._expect(inputs, message)
        return {"recipe": recipe}

    def expect(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """What is expected of a source set as it stands, with the parameters as they are."""
        self._expect(self.borrowed.values("source", message["set"]), message)
        return {}

    def fill(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Fresh values for the source sets: `seeds` are drawn, further ones are drawn ones elsewhere and a little
        smaller, by secret `shifts`."""
        with torch.inference_mode():
            drawn = [self._make_inputs(seed) for seed in message["seeds"]]
            again = len(message["sets"]) > len(drawn)
            pulls = self._draw_pulls(message["shifts"][0]) if again else []
            for i, entry in enumerate(message["sets"]):
                if i < len(drawn):
                    self._lend(entry, drawn[i])
                else:
                    self._lend(entry, drawn[i % len(drawn)], message["shifts"][i], pulls)
        self._synchronize()
        return {}

    def admit(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Whether cheap wrong answers would pass, and which bytes of the inputs matter (admission.py)."""
        from cudaforge.engine.admission import examine
        from cudaforge.task import Tolerance

        self._set_parameters(message["parameter_seed"])
        first, second = (self._make_inputs(seed) for seed in message["seeds"])
        with torch.inference_mode():
            found = examine(
                lambda inputs: [t.clone() for t in _tensors(self.model(*inputs))],
                (lambda inputs: _tensors(self._expected64(inputs))) if message["float64"] else None,
                first,
                second,
                Tolerance.model_validate(message["tolerance"]),
            )
        return dataclasses.asdict(found)

    def _draw_pulls(self, seed: int) -> list[torch.Tensor]:
        """What elements keep of themselves, for `_lend`: each list twice over, so that it can begin anywhere."""
        generator = torch.Generator(self.device).manual_seed(seed)
        kept = [1 - LEAST_PULL * (1 + torch.rand(n, generator=generator, device=self.device)) for n in PERIODS]
        return [torch.cat([keep, keep]) for keep in kept]

    def _lend(
        self, entry: dict[str, Any], inputs: list[Any], shift: int = 0, pulls: Sequence[torch.Tensor] = ()
    ) -> None:
        """Writes inputs to a lent set. With a shift, those without structure are rolled by so many elements and pulled
        a little towards the value in their range that is closest to zero: a result for the same values elsewhere, kept
        from another set, is of no use."""
        _, tensors = _packed(inputs)
        lent = self.borrowed.tensors("source", entry["slots"])
        for tensor, mine, support in zip(tensors, lent, self.supports, strict=True):
            shift = shift * ODD % (1 << 61)  # another one for each input: what two of them make is not moved around
            if not shift or support.fixed:
                mine.copy_(tensor)
                continue
            cut, rest = shift % tensor.numel(), shift
            flat, into = tensor.reshape(-1), mine.view(-1)
            into[cut:] = flat[: flat.numel() - cut]
            into[:cut] = flat[flat.numel() - cut :]
            if support.neutral:
                into.sub_(support.neutral)
            for pull in pulls:
                period = pull.numel() // 2
                rest, at = divmod(rest, period)
                keep, whole = pull[at : at + period].to(into.dtype), into.numel() // period * period
                into[:whole].view(-1, period).mul_(keep)
                into[whole:].mul_(keep[: into.numel() - whole])
            if support.neutral:
                into.add_(support.neutral)

    def _expect(self, inputs: list[Any], message: dict[str, Any]) -> None:
        with torch.inference_mode():
            own = [t.clone() for t in _tensors(self.model(*copy.deepcopy(inputs)))]
            exact = _tensors(self._expected64(inputs)) if message["float64"] else own
        for name, values in (("expected", own), ("exact", exact)):
            lent = self.borrowed.tensors(message[name], message[f"{name}_slots"])
            for tensor, mine in zip(values, lent, strict=True):
                mine.copy_(tensor)
        self._synchronize()

    def _finite(self, inputs: list[Any]) -> bool:
        with torch.inference_mode():
            out = _tensors(self.model(*copy.deepcopy(inputs)))
            return all(bool(torch.isfinite(t).all()) for t in out if t.is_floating_point())

    def _make_inputs(self, seed: int, recipe: str = recipes.NATURAL) -> list[Any]:
        torch.manual_seed(seed)
        with torch.device(self.device):
            inputs = self.module.get_inputs()
        inputs = [self._to_task_dtype(value) for value in inputs]
        if recipe == recipes.NATURAL:
            return inputs
        generator = torch.Generator(self.device).manual_seed(seed ^ 0x9E37)
        tree, tensors = _packed(inputs)
        shaped = [recipes.apply(recipe, t, s, generator) for t, s in zip(tensors, self.supports, strict=True)]
        return list(unpack(tree, shaped))

    def _to_task_dtype(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.to(self.device)
            return value.to(self.dtype) if self.dtype is not None and value.is_floating_point() else value
        if isinstance(value, list | tuple):
            return type(value)(self._to_task_dtype(item) for item in value)
        return value

    def _set_parameters(self, seed: int | None) -> None:
        """Pristine values; with a seed, constant ones random (gamma is not 1, bias is not 0), others moved around and
        scaled."""
        generator = torch.Generator(device="cpu")
        if seed is not None:
            generator.manual_seed(seed)
        with torch.no_grad():
            for name, tensor in self.named:
                value = self.pristine[name]
                if seed is not None and self._varied(name, value):
                    noise = torch.rand(value.shape, generator=generator).to(value.device, value.dtype)
                    first = float(value.flatten()[0])
                    # A positive constant stays positive: a scale or a variance must not change its sign.
                    value = value * (0.5 + noise) if first != 0 else noise - 0.5
                elif seed is not None and name in self.trained and value.is_floating_point() and value.numel() > 1:
                    # Other values elsewhere: what was derived from earlier parameters, a norm of them say, is stale.
                    value = value.flatten().roll(1 + seed % (value.numel() - 1)).view(value.shape)
                    value = value * (0.75 + 0.5 * float(torch.rand((), generator=generator)))
                tensor.copy_(value)

    def _expected64(self, inputs: list[Any]) -> Any:
        model = copy.deepcopy(self.model).double()
        return model(*[_double(value) for value in inputs])


def _flop_counter() -> FlopCounterMode:
    """torch's counter, without what imports torch._dynamo at the first operation (1 to 4 s): see guards.py."""
    mode: Any = getattr(flop_counter, "_FlopCounterMode", None)
    wrapped: Any = getattr(mode, "__torch_dispatch__", None)
    if hasattr(wrapped, "__wrapped__"):
        mode.__torch_dispatch__ = wrapped.__wrapped__
    return FlopCounterMode(display=False)


def _is_supported(dtype: torch.dtype) -> bool:
    """Whether tensors of it can be compared: no complex numbers, no floats of a byte."""
    return not dtype.is_complex and (not dtype.is_floating_point or dtype.itemsize > 1)


def _constant(value: torch.Tensor) -> bool:
    return value.numel() > 0 and bool((value == value.flatten()[0]).all())


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    if isinstance(value, list | tuple):
        return type(value)(_double(item) for item in value)
    return value


def _packed(inputs: list[Any]) -> tuple[Any, list[torch.Tensor]]:
    tensors: list[torch.Tensor] = []
    return pack(inputs, tensors), tensors


def _tensors(out: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    pack(out, found)
    return found


def _override(source: str, overrides: dict[str, Any]) -> str:
    """The task's source with module-level assignments of the given names replaced by constants."""
    import ast

    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in overrides:
                node.value = ast.copy_location(ast.parse(repr(overrides[name]), mode="eval").body, node.value)
    return ast.unparse(ast.fix_missing_locations(tree))


HANDLERS = (
    *("load", "give_init", "describe", "make", "expect", "fill", "admit"),
    *("give_parameters", "take_parameters", "set_parameters"),
    *RUNNER_HANDLERS,
)


def answer(channel: Channel) -> None:
    """Serves the supervisor until the channel closes."""
    reference = Reference()
    serve(channel, {"map": reference.borrowed.open, **{name: getattr(reference, name) for name in HANDLERS}})


def main() -> None:
    """A reference in an interpreter of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    answer(Channel(socket.socket(fileno=parser.parse_args().fd)))


if __name__ == "__main__":
    main()
