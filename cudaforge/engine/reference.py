"""The reference's process: runs the task. Makes inputs, parameters and expected outputs; times the baselines.

The task is a user's file, so this process is confined like a candidate's; but it may run compilers, which
torch.compile needs. Inputs and outputs go into memory that the supervisor lends.
"""

from __future__ import annotations

import argparse
import copy
import socket
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cudaforge.engine.candidate import Borrowed, TimedCalls
from cudaforge.engine.protocol import Channel, harden, leaves, pack, serve, spec_of, unpack

RUNNING_STATISTICS = ("running_mean", "running_var")
"""Buffers that are perturbed like parameters; others may hold constants that a kernel may rely on."""


class Reference:
    """Handlers of the supervisor's messages."""

    def __init__(self) -> None:
        self.borrowed = Borrowed()
        self.device = "cpu"
        self.dtype: torch.dtype | None = None
        self.module = types.ModuleType("cudaforge_task")
        self.model: torch.nn.Module = torch.nn.Identity()
        self.pristine: dict[str, torch.Tensor] = {}
        self.timed: dict[str, TimedCalls] = {}

    def hello(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Confines the process further."""
        return {"layers": harden(message.get("limits", {}))}

    def load(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Executes the task's file with the workload's overrides and constructs Model from a seed.

        Returns the constructor's arguments, parameters and buffers as specs.
        """
        self.device = message["device"]
        self.dtype = getattr(torch, message["dtype"]) if message["dtype"] else None
        torch.backends.cuda.matmul.allow_tf32 = message["allow_tf32"]
        torch.backends.cudnn.allow_tf32 = message["allow_tf32"]
        namespace = self.module.__dict__
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
            torch.manual_seed(message["init_seed"])
            self.model = self.module.Model(*self.init).to(self.device)
        if self.dtype is not None:
            self.model = self.model.to(self.dtype)
        tensors: list[torch.Tensor] = []
        init_tree = pack(list(self.init), tensors)
        self.init_tensors = tensors
        self.named = [*self.model.named_parameters(), *self.model.named_buffers()]
        self.pristine = {name: tensor.detach().clone() for name, tensor in self.named}
        trained = {name for name, _ in self.model.named_parameters()}
        return {
            "init": init_tree,
            "init_specs": [spec_of(t) for t in tensors],
            "parameters": [[name, *spec_of(tensor), name in trained] for name, tensor in self.named],
        }

    def give_init(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Writes tensors among the constructor's arguments to the lent buffer."""
        for tensor, lent in zip(self.init_tensors, self.borrowed.tensors("init", message["slots"]), strict=True):
            lent.copy_(tensor)
        self._synchronize()
        return {}

    def describe(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Runs once: specs of inputs and outputs, operations, whether float64 works."""
        inputs = self._make_inputs(message["seed"])
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
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
        ins: list[torch.Tensor] = []
        result |= {"inputs": pack(inputs, ins), "input_specs": [spec_of(t) for t in ins]}
        self._synchronize()
        return {**result, "flops": flops, "no_float64": why}

    def make(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One trial: inputs and parameters from seeds, expected outputs in the task's dtype and in float64."""
        inputs = self._make_inputs(message["seed"])
        self._set_parameters(message["parameter_seed"])
        ins: list[torch.Tensor] = []
        tree = pack(inputs, ins)
        for tensor, lent in zip(ins, self.borrowed.tensors(message["inputs"], message["input_slots"]), strict=True):
            lent.copy_(tensor)
        lent_parameters = self.borrowed.tensors("parameters", message["parameter_slots"])
        for (_, tensor), lent in zip(self.named, lent_parameters, strict=True):
            lent.copy_(tensor.detach())
        with torch.inference_mode():
            own = [t.clone() for t in _tensors(self.model(*copy.deepcopy(inputs)))]
            exact = _tensors(self._expected64(inputs)) if message["float64"] else own
        for tensor, lent in zip(
            own, self.borrowed.tensors(message["expected"], message["expected_slots"]), strict=True
        ):
            lent.copy_(tensor)
        for tensor, lent in zip(exact, self.borrowed.tensors(message["exact"], message["exact_slots"]), strict=True):
            lent.copy_(tensor)
        self._synchronize()
        return {"tree": tree}

    def prepare(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Sets up timing of `eager` or `compile:MODE` on lent input sets: copies, compiles, warms up."""
        mode = message["what"]
        call: Callable[..., Any] = self.model
        if mode != "eager":
            torch._dynamo.reset()
            chosen = mode.removeprefix("compile:")
            call = torch.compile(self.model, mode=None if chosen == "default" else chosen, dynamic=False)
        sets = []
        for entry in message["sets"]:
            tensors = self.borrowed.tensors(entry["buffer"], entry["slots"])
            sets.append([x.clone() if isinstance(x, torch.Tensor) else x for x in unpack(entry["tree"], tensors)])
        with torch.inference_mode():
            timed = TimedCalls(call, sets, self.device)
            timed.warm(message["warm_s"])
        self.timed[mode] = timed
        return {}

    def block(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A block of timed calls of what was prepared."""
        with torch.inference_mode():
            return {"samples_us": self.timed[message["what"]].block(message["calls"])}

    def release(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Forgets prepared timings other than those in `keep`, and gives memory back."""
        self.timed = {name: timed for name, timed in self.timed.items() if name in message["keep"]}
        for name in message.get("buffers", []):
            self.borrowed.bases.pop(name, None)
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return {}

    def _make_inputs(self, seed: int) -> list[Any]:
        torch.manual_seed(seed)
        with torch.device(self.device):
            inputs = self.module.get_inputs()
        return [self._to_task_dtype(value) for value in inputs]

    def _to_task_dtype(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.to(self.device)
            return value.to(self.dtype) if self.dtype is not None and value.is_floating_point() else value
        if isinstance(value, list | tuple):
            return type(value)(self._to_task_dtype(item) for item in value)
        return value

    def _set_parameters(self, seed: int | None) -> None:
        """Pristine values, or (with a seed) constant ones made random: gamma is not 1, bias is not 0."""
        generator = torch.Generator(device="cpu")
        if seed is not None:
            generator.manual_seed(seed)
        trained = {name for name, _ in self.model.named_parameters()}
        with torch.no_grad():
            for name, tensor in self.named:
                value = self.pristine[name]
                known = name in trained or name.rpartition(".")[2] in RUNNING_STATISTICS
                if seed is not None and known and value.is_floating_point() and _constant(value):
                    noise = torch.rand(value.shape, generator=generator).to(value.device, value.dtype)
                    first = float(value.flatten()[0])
                    # A positive constant stays positive: a scale or a variance must not change its sign.
                    value = value * (0.5 + noise) if first != 0 else noise - 0.5
                tensor.copy_(value)

    def _expected64(self, inputs: list[Any]) -> Any:
        model = copy.deepcopy(self.model).double()
        return model(*[_double(value) for value in inputs])

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def _constant(value: torch.Tensor) -> bool:
    return value.numel() > 0 and bool((value == value.flatten()[0]).all())


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    if isinstance(value, list | tuple):
        return type(value)(_double(item) for item in value)
    return value


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


def main() -> None:
    """Serves the supervisor until the channel closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    channel = Channel(socket.socket(fileno=parser.parse_args().fd))
    reference = Reference()
    names = ("hello", "load", "give_init", "describe", "make", "prepare", "block", "release")
    serve(channel, {"map": reference.borrowed.open, **{name: getattr(reference, name) for name in names}})


if __name__ == "__main__":
    main()
