"""The candidate's process: loads one kernel's package, runs it on what it was lent, lands what it returns.

Everything here shares the process with untrusted code, so nothing here is trusted: tampering with this runner can
only spoil the answer. It holds no expected output, no seed of the inputs, no reference and no credential.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import importlib.util
import itertools
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from cudaforge.engine import inline
from cudaforge.engine.calls import Borrowed, Calls, Pool, describe, land, poisoned_allocations
from cudaforge.engine.guards import GuardedAllocations
from cudaforge.engine.protocol import Channel, Slot, digest_of, serve, spec_of, unpack


class Runner:
    """Handlers that reference and candidate have in common: batches of timed calls on lent input sets."""

    def __init__(self) -> None:
        self.borrowed = Borrowed()
        self.device = "cpu"
        self.calls: dict[str, Calls] = {}
        self.pool: Pool | None = None

    def function(self, what: str) -> Any:
        """What is called under this name."""
        raise NotImplementedError

    def arrange(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Readies batches of `what` on the sets {tree, slots} of a lent buffer: warms up, takes its memory."""
        if self.device != "cpu" and self.pool is None and "arena" in self.borrowed.bases:
            self.pool = Pool(self.borrowed.bases["arena"])
        what = message["what"]
        with torch.inference_mode():
            if message["fresh"] or what not in self.calls:
                self.calls[what] = Calls(self.function(what), self.device, self.pool)
            calls = self._only(what)
            calls.inputs = [self.borrowed.values(message["buffer"], entry) for entry in message["sets"]] or [[]]
            if message["fresh"]:
                calls.warm(message["warm_s"])
            calls.fill_pool(message["held"])
        return {"arena": self.pool.base} if self.pool else {}

    def _only(self, what: str) -> Calls:
        """The calls of `what`. Outputs of others are let go: the arena has room for one batch."""
        for name, calls in self.calls.items():
            if name != what:
                calls.held = []
        return self.calls[what]

    def _memory(self) -> dict[str, Any]:
        """What the arena has given so far, in bytes."""
        return {"used": self.pool.used, "outside": self.pool.outside} if self.pool else {}

    def queue(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """GPU: queues a batch behind the gate, says where its outputs will lie and what queueing cost the host."""
        calls, page = self._only(message["what"]), self.borrowed.page
        assert page is not None
        with torch.inference_mode():
            calls.queue(page, message["order"], message["ticket"])
        outputs = calls.describe() if message.get("describe") else []
        return {"outputs": outputs, "host_us": calls.host_s * 1e6, **self._memory()}

    def event_us(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """GPU: this process's own time of the last queued batch."""
        return {"event_us": self.calls[message["what"]].event_us()}

    def batch(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A batch under the supervisor's clock around question and answer: on the CPU, and for what waits on the host.

        The addresses of the outputs' tensors go into the lent `table`.
        """
        calls = self._only(message["what"])
        with torch.inference_mode():
            held = calls.run(message["order"])
        self._tabulate(held)
        self._synchronize()
        return self._memory()

    def _tabulate(self, held: list[Any]) -> None:
        addresses: list[int] = []
        for out in held:
            if type(out) is torch.Tensor:
                addresses.append(out.data_ptr())
            else:
                addresses += [tensor[4] for tensor in describe(out)["tensors"]]
        table = self.borrowed.bases["table"]
        addresses = addresses[: table.numel() // 8]
        words: Any = (ctypes.c_uint64 * len(addresses)).from_address(table.data_ptr())
        words[:] = addresses

    def trace(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """What calls on the sets launch on the GPU (trace.py); `why` where that cannot be had. Calls on the last set
        come before, not traced. Lands the output of one."""
        from cudaforge.engine.trace import TraceError, launches

        call = self.function(message["what"])
        inputs = [self.borrowed.values(message["buffer"], entry) for entry in message["sets"]]
        numbers, kept = itertools.count(), list[Any]()

        def once() -> None:
            number = next(numbers)
            out = call(*inputs[number])
            if number == message["landed"]:
                kept.append(out)

        try:
            with torch.inference_mode():
                for _ in range(message["before"]):
                    call(*inputs[-1])
                calls = launches(once, message["calls"])
        except TraceError as error:
            return {"why": str(error)}
        if not kept:
            return {"why": "the calls were not made"}
        said = {}
        if message.get("landing"):
            slots = [Slot.of(wire) for wire in message["landing_slots"]]
            said = land(kept[0], self.borrowed.bases[message["landing"]], slots, self.device)
            self._synchronize()
        return {"calls": calls, "output": said}

    def outputs(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Describes the outputs of the last batch."""
        return {"outputs": self.calls[message["what"]].describe()}

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


RUNNER_HANDLERS = ("arrange", "queue", "event_us", "batch", "trace", "outputs")


class Candidate(Runner):
    """Handlers of the supervisor's messages."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = None

    def function(self, what: str) -> Any:
        """There is one: the kernel."""
        return self.model

    def wake(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Gets ready for a kernel that is not there yet: what every kernel needs is imported and, with a `device`, that
        device's context is made, which takes longest."""
        with contextlib.suppress(ImportError):
            importlib.import_module("tvm_ffi")
        if message["device"]:
            torch.ones(1, device=message["device"])
            torch.cuda.synchronize()
        return {}

    def load(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Imports the package and constructs ModelNew; returns its parameters and buffers, as the reference does."""
        self.device = message["device"]
        torch.backends.cuda.matmul.allow_tf32 = message["allow_tf32"]
        torch.backends.cudnn.allow_tf32 = message["allow_tf32"]
        if message.get("prebuilt"):
            inline.use_what_was_built()
        else:
            inline.accelerate()
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
        return {"parameters": [[n, *spec_of(t), n in parameters, digest_of(t), False] for n, t in named]}

    def build(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Imports the package, so that what it compiles by then is compiled. No device is needed."""
        inline.accelerate()
        _import_package(Path(message["package"]))
        return {}

    def parameters(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Copies lent values into the model by name; copy_ bumps the version, so prepacked weights can notice."""
        own = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        lent = self.borrowed.tensors("parameters", message["slots"])
        with torch.no_grad():
            for name, value in zip(message["names"], lent, strict=True):
                own[name].copy_(value)
        self._synchronize()
        return {}

    def check(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Runs forward on each lent input set, holding all outputs, then lands each in its buffer.

        Holding several at once shows an output buffer that is used again. `again` lands the same inputs a second
        time, so that a race shows. Allocations are poisoned and guarded: unwritten elements and writes beyond the
        end of an output show.
        """
        sets = [self.borrowed.values("slots", entry) for entry in message["sets"]]
        guarded = GuardedAllocations() if message.get("guard") else None
        with torch.inference_mode(), poisoned_allocations():
            if guarded is None:
                held = [self.model(*inputs) for inputs in sets]
            else:
                with guarded:
                    held = [self.model(*inputs) for inputs in sets]
            # Not waited for: what is not joined to the current stream is not in the copy.
            landed = [self._land(out, entry) for out, entry in zip(held, message["sets"], strict=True)]
        self._synchronize()
        return {"outputs": landed, "overrun": guarded.overrun() if guarded else ""}

    def _land(self, out: Any, entry: dict[str, Any]) -> dict[str, Any]:
        slots = [Slot.of(wire) for wire in entry["landing_slots"]]
        return land(out, self.borrowed.bases[entry["landing"]], slots, self.device)

    def profile(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """A few warm calls, then one inside an NVTX range for ncu, and the end of the process is the report."""
        inputs = [
            x.clone() if isinstance(x, torch.Tensor) else x for x in self.borrowed.values("slots", message["set"])
        ]
        with torch.inference_mode():
            for _ in range(2):
                self.model(*inputs)
            self._synchronize()
            torch.cuda.nvtx.range_push(message["range"])
            self.model(*inputs)
            self._synchronize()
            torch.cuda.nvtx.range_pop()
        return {}


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


HANDLERS = ("wake", "load", "build", "parameters", "check", "profile", *RUNNER_HANDLERS)


def answer(channel: Channel) -> None:
    """Serves the supervisor until the channel closes."""
    candidate = Candidate()
    serve(channel, {"map": candidate.borrowed.open, **{name: getattr(candidate, name) for name in HANDLERS}})


def main() -> None:
    """A candidate in an interpreter of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    answer(Channel(socket.socket(fileno=parser.parse_args().fd)))


if __name__ == "__main__":
    main()
