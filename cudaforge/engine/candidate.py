"""The candidate's process: loads one kernel's package, runs it on what it was lent, lands what it returns.

Everything here shares the process with untrusted code, so nothing here is trusted: tampering with this runner can
only spoil the answer. It holds no expected output, no seed of the inputs, no reference and no credential.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from cudaforge.engine.protocol import Channel, Slot, harden, leaves, open_lent, pack, serve, spec_of, unpack, view


class Borrowed:
    """Buffers that the supervisor has lent to this process, by name."""

    def __init__(self) -> None:
        self.bases: dict[str, torch.Tensor] = {}

    def open(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Handler of `map`: opens `buffers` [{id, ...}]."""
        rest = iter(fds)
        for wire in message["buffers"]:
            self.bases[wire["id"]] = open_lent(wire, next(rest) if wire["kind"] == "shm" else None)
        return {}

    def tensors(self, buffer: str, slots: list[list[Any]]) -> list[torch.Tensor]:
        """Views at `slots` of a lent buffer."""
        return [view(self.bases[buffer], Slot.of(wire)) for wire in slots]


class TimedCalls:
    """Calls of one function on rotating input sets, timed in blocks."""

    def __init__(self, call: Callable[..., Any], sets: list[list[Any]], device: str) -> None:
        self.call, self.sets, self.device = call, sets, device
        self.turn = 0
        self.last: Any = None
        if device != "cpu":
            properties = torch.cuda.get_device_properties(device)
            self.flush = torch.empty(max(2 * properties.L2_cache_size, 1 << 26), dtype=torch.uint8, device=device)
            self.host_s = 0.0

    def _once(self) -> None:
        self.last = self.call(*self.sets[self.turn % len(self.sets)])
        self.turn += 1

    def warm(self, seconds: float) -> None:
        """Calls until `seconds` have passed, at least twice. Collects garbage once, so that blocks need not."""
        gc.collect()
        until, count = time.perf_counter() + seconds, 0
        while count < 2 or time.perf_counter() < until:
            self._once()
            count += 1
            if self.device != "cpu":
                torch.cuda.synchronize()
        if self.device != "cpu":
            started = time.perf_counter()
            for _ in range(4):
                self._once()
            self.host_s = (time.perf_counter() - started) / 4
            torch.cuda.synchronize()

    def block(self, calls: int) -> list[float]:
        """Runs `calls` calls. On a GPU returns microseconds of each by events (cold L2, queued ahead of the host);
        on the CPU nothing: the supervisor holds the clock."""
        gc.disable()
        try:
            if self.device == "cpu":
                for _ in range(calls):
                    self._once()
                return []
            return self._events(calls)
        finally:
            gc.enable()

    def _events(self, calls: int) -> list[float]:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        # A spin kernel keeps the GPU busy until the host has queued everything, so no launch gap is timed.
        spin_s = min(1.5 * calls * (self.host_s + 20e-6) + 50e-6, 0.2)
        torch.cuda._sleep(int(spin_s * 2e9))
        for start, end in pairs:
            self.flush.zero_()
            start.record()
            self._once()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e3 for start, end in pairs]


class Candidate:
    """Handlers of the supervisor's messages."""

    def __init__(self) -> None:
        self.borrowed = Borrowed()
        self.device = "cpu"
        self.model: Any = None
        self.timed: TimedCalls | None = None

    def hello(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Confines the process further; nothing untrusted is loaded yet."""
        return {"layers": harden(message.get("limits", {}))}

    def load(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Imports the package and constructs ModelNew; returns its parameters and buffers."""
        self.device = message["device"]
        torch.backends.cuda.matmul.allow_tf32 = message["allow_tf32"]
        torch.backends.cudnn.allow_tf32 = message["allow_tf32"]
        init = unpack(message["init"], self.borrowed.tensors("init", message["init_slots"]))
        module = _import_package(Path(message["package"]))
        torch.manual_seed(message["init_seed"])
        dtype = getattr(torch, message["dtype"]) if message["dtype"] else None
        with torch.device(self.device):
            self.model = module.ModelNew(*init)
        if isinstance(self.model, torch.nn.Module):
            self.model = self.model.to(self.device)
            if dtype is not None:
                self.model = self.model.to(dtype)
            named = [*self.model.named_parameters(), *self.model.named_buffers()]
            parameters = {name for name, _ in self.model.named_parameters()}
        else:
            named, parameters = [], set()
        return {"parameters": [[name, *spec_of(tensor), name in parameters] for name, tensor in named]}

    def parameters(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Copies lent values into the model by name; copy_ bumps the version, so prepacked weights can notice."""
        own = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        lent = self.borrowed.tensors("parameters", message["slots"])
        with torch.no_grad():
            for name, value in zip(message["names"], lent, strict=True):
                own[name].copy_(value)
        self._synchronize()
        return {}

    def run(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Runs forward on each lent input set, holding all outputs, then lands each in its buffer.

        Holding several at once shows an output buffer that is used again.
        """
        sets = [self._inputs(entry) for entry in message["sets"]]
        with torch.inference_mode(), _poisoned_allocations():
            held = [self.model(*inputs) for inputs in sets]
            landed = [self._land(out, entry) for out, entry in zip(held, message["sets"], strict=True)]
        self._synchronize()
        return {"outputs": landed}

    def _inputs(self, entry: dict[str, Any]) -> list[Any]:
        return list(unpack(entry["tree"], self.borrowed.tensors(entry["buffer"], entry["slots"])))

    def _land(self, out: Any, entry: dict[str, Any]) -> dict[str, Any]:
        """Copies outputs into the landing buffer where dtype and shape are as the slots say."""
        tensors: list[torch.Tensor] = []
        tree = pack(out, tensors)
        slots = [Slot.of(wire) for wire in entry["landing_slots"]]
        base = self.borrowed.bases[entry["landing"]]
        for tensor, slot in zip(tensors, slots, strict=False):
            if spec_of(tensor) == (slot.dtype, slot.shape) and tensor.device.type == torch.device(self.device).type:
                view(base, slot).copy_(tensor)
        described = [[*spec_of(t), t.device.type] for t in tensors]
        return {"leaves": leaves(tree), "tensors": described}

    def prepare(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Copies the input sets to memory of this process's own allocator and warms up."""
        sets = [
            [x.clone() if isinstance(x, torch.Tensor) else x for x in self._inputs(entry)] for entry in message["sets"]
        ]
        self.timed = TimedCalls(self.model, sets, self.device)
        with torch.inference_mode():
            self.timed.warm(message["warm_s"])
        return {}

    def block(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A block of timed calls."""
        assert self.timed is not None
        with torch.inference_mode():
            return {"samples_us": self.timed.block(message["calls"])}

    def land_last(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Lands the output of the last timed call; says which input set it was for."""
        assert self.timed is not None
        landed = self._land(self.timed.last, message)
        self._synchronize()
        return {"output": landed, "set": (self.timed.turn - 1) % len(self.timed.sets)}

    def profile(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A few warm calls, then one inside an NVTX range for ncu, and the end of the process is the report."""
        inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in self._inputs(message["set"])]
        with torch.inference_mode():
            for _ in range(2):
                self.model(*inputs)
            self._synchronize()
            torch.cuda.nvtx.range_push(message["range"])
            self.model(*inputs)
            self._synchronize()
            torch.cuda.nvtx.range_pop()
        return {}

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


@contextlib.contextmanager
def _poisoned_allocations() -> Iterator[None]:
    """torch.empty gives NaN (or the largest integer) in place of old memory, so that unwritten elements show."""
    # Memory is filled under deterministic mode. torch.use_deterministic_algorithms does the same and imports the whole
    # of inductor besides, which takes seconds.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False)


def _import_package(folder: Path) -> Any:
    name = f"cudaforge_kernel_{folder.name}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Serves the supervisor until the channel closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    channel = Channel(socket.socket(fileno=parser.parse_args().fd))
    candidate = Candidate()
    names = ("hello", "load", "parameters", "run", "prepare", "block", "land_last", "profile")
    serve(channel, {"map": candidate.borrowed.open, **{name: getattr(candidate, name) for name in names}})


if __name__ == "__main__":
    main()
