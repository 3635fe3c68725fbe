"""The supervisor's side of the reference and of a candidate: what is lent to whom, asked, and believed.

| buffer                 | reference | candidate | holds                                                            |
|------------------------|-----------|-----------|------------------------------------------------------------------|
| init, parameters       | writes    | reads     | the constructor's tensors; parameters and buffers by name        |
| source                 | writes    | -         | input sets, drawn by the task                                    |
| slots                  | -         | reads     | what the supervisor copies from source, between guard bands      |
| expected, exact        | writes    | -         | what is right, in the task's dtype and in float64                |
| landing                | -         | writes    | outputs of checked calls, poisoned before, between guard bands   |
| arena (GPU)            | its own   | its own   | all that is allocated while calls are timed, outputs among it    |
| table                  | its own   | its own   | addresses of the outputs of timed calls                          |
| gate (GPU)             | its own   | its own   | the page of the clock                                            |

A twin of the reference's has table, arena and gate of its own, and reads the reference's init, parameters and source.
On the CPU the reference makes no timed calls and has no table.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cudaforge.engine import check, gate
from cudaforge.engine.builder import Built
from cudaforge.engine.memory import GUARD, INPUT_GUARD, Buffer, NoRoomError, free_bytes
from cudaforge.engine.protocol import MAX_FDS, Slot, Spec
from cudaforge.engine.sandbox import LIMITS, Child, ChildDied, ChildError, ChildTimeout
from cudaforge.engine.waiting import Waiting
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import OutputError
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task, Workload

if TYPE_CHECKING:
    import torch

_LIBC = ctypes.CDLL(None)
_LIBC.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

PIECE, HELD_BACK, MOST_HELD = 16, 256, 4096
"""Bytes of a piece of an input that is held back to the last, one piece in how many, and how many of an input at most.
More of them would leave a small input in the cache."""
SETS = 2
"""Input sets that are checked at once, so that two outputs are held before either is looked at."""
REFERENCE_TIMEOUT_S = 900.0
MOST_SETS = {"cpu": 500, "cuda": 400}
"""Calls of a batch at most: fewer than a stream's queue takes."""
SET_BYTES = {"cpu": 64 << 20, "cuda": 4 << 30}
"""Memory for the inputs of a batch. What runs at memory speed needs no more: a batch takes a few milliseconds."""
SET_SHARE = 12
"""What is free of a GPU's memory is enough for so many times the inputs of a batch: the reference's, the candidate's,
their arenas, and those of the control process."""
INPUTS_S = {"movable": 0.03, "fixed": 0.3}
"""Time that drawing the inputs of a batch may take. Beyond it, sets are drawn ones moved around, where they may be."""
MOST_DATA = 16 << 30
"""Anonymous memory of a candidate's process on the CPU, beyond what the task itself needs."""


class TaskBroken(Exception):  # noqa: N818 - the caller decides what it means
    """The task's own code failed: no verdict on any kernel is possible. `unsteady`: it ran, and results differ."""

    def __init__(self, reason: str, *, unsteady: bool = False) -> None:
        super().__init__(reason)
        self.unsteady = unsteady


class CandidateFailed(Exception):  # noqa: N818 - an outcome that becomes a verdict
    """The candidate crashed, raised, hung, broke a rule or returned something of the wrong form.

    `kind`: `error` (RUNTIME_ERROR), `timeout` (TIMEOUT), `form` (INCORRECT: structure, dtype or shape), `rule`
    (REJECTED).
    """

    def __init__(self, kind: str, reason: str, *, error: ChildError | None = None, stage: str = "") -> None:
        super().__init__(reason)
        self.kind, self.reason, self.error, self.stage = kind, reason, error, stage


@dataclass
class Parameter:
    """A parameter or buffer of the reference or of a candidate."""

    name: str
    spec: Spec
    trained: bool
    digest: str = ""
    """Of its values at construction (protocol.digest_of)."""
    varied: bool = False
    """The reference's: it is constant at construction, and random in trials."""


def _parameters(wire: list[Any]) -> list[Parameter]:
    return [
        Parameter(str(name), (str(dtype), tuple(shape)), bool(trained), str(digest), bool(varied))
        for name, dtype, shape, trained, digest, varied in wire
    ]


@dataclass
class Page:
    """The clock's page of one process as the supervisor sees it."""

    fd: int
    words: memoryview
    ticket: int = 0
    registered: Any = None
    """The page registered with CUDA in the supervisor (gate.GatePage), for snapshots."""

    @classmethod
    def new(cls) -> Page:
        """A fresh one."""
        fd = gate.new_page()
        return cls(fd, memoryview(mmap.mmap(fd, gate.PAGE)).cast("I"))

    def close(self) -> None:
        """Gives it back."""
        if self.registered is not None:
            self.registered.close()
            self.registered = None
        os.close(self.fd)


class Host:
    """A child process with what it was lent. Subclasses say what its failures mean."""

    child: Child

    def __init__(self, device: str) -> None:
        self.device = device
        self.gpu = device != "cpu"
        self.buffers: dict[str, Buffer] = {}
        self.page: Page | None = None
        self.arena_base = 0

    def ask(self, stage: str, message: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Asks the child, in a stage of the evaluation."""
        raise NotImplementedError

    def lend(self, names: dict[str, Buffer]) -> None:
        """Maps buffers into the child under the given names, a few file descriptors a message."""
        items = list(names.items())
        for start in range(0, len(items), MAX_FDS):
            wires, fds = [], []
            for name, buffer in items[start : start + MAX_FDS]:
                wire, fd = buffer.lend()
                wires.append({"id": name, **wire})
                if fd is not None:
                    fds.append(fd)
            self.child.ask({"do": "map", "buffers": wires}, 120.0, fds)

    def lend_page(self) -> None:
        """Maps a page of the clock into the child."""
        self.page = Page.new()
        self.child.ask({"do": "map", "buffers": [{"id": "gate", "kind": "gate"}]}, 120.0, [self.page.fd])

    def _settle(self) -> None:
        """Waits for what the supervisor has asked of the GPU: another process's work is in no order with it."""
        import torch

        if self.gpu:
            torch.cuda.current_stream(self.device).synchronize()

    @property
    def held_bytes(self) -> int:
        """Device memory that is set aside for it here; its own, for weights and what it computes, is not counted."""
        return sum(buffer.nbytes for buffer in self.buffers.values())

    def close(self) -> None:
        """Ends the process and frees what it was lent. Idempotent."""
        if hasattr(self, "child"):
            self.child.close()
        for buffer in self.buffers.values():
            buffer.close()
        self.buffers = {}
        if self.page is not None:
            self.page.close()
            self.page = None


class TaskHost(Host):
    """A process that runs the task's own code. Raises TaskBroken where that fails."""

    def __init__(
        self,
        task: Task,
        workload: Workload,
        device: str,
        cache: tuple[str, ...],
        extra_env: dict[str, str],
        init_seed: int,
    ) -> None:
        super().__init__(device)
        self.task, self.workload, self.init_seed = task, workload, init_seed
        self.cache, self.extra_env = cache, extra_env
        self.child = Child("reference", write=cache, programs=True, limits=LIMITS, device=device, extra_env=extra_env)

    def started(self) -> None:
        """Waits for the process."""
        try:
            self.child.started(120.0)
        except (ChildDied, ChildTimeout) as failure:
            raise EvaluatorError(f"the reference's process does not start: {failure}. {self.child.output}") from None

    def load(self, **init: Any) -> dict[str, Any]:
        """Lets it execute the task and construct its Model, with lent `init` and `init_slots` or the task's own
        arguments; what it says of that."""
        meta = self.task.meta
        return self.ask(
            "load",
            {
                **init,
                "do": "load",
                "source": self.task.source,
                "file": f"{self.task.name}.py",
                "overrides": self.workload.overrides,
                "dtype": meta.dtype,
                "allow_tf32": meta.allow_tf32,
                "device": self.device,
                "init_seed": self.init_seed,
            },
        )

    def ask(self, stage: str, message: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Asks the process. TaskBroken where the task's code raises, EvaluatorError where the process fails."""
        try:
            return self.child.ask(message, timeout or REFERENCE_TIMEOUT_S)
        except ChildError as error:
            if "out of memory" in error.message.lower():
                raise NoRoomError(f"the reference has too little memory: {error.message[:300]}") from None
            ours = [frame for frame in error.frames if frame[0] == f"{self.task.name}.py"]
            where = f"{ours[-1][0]}:{ours[-1][1]}: " if ours else ""
            raise TaskBroken(f"{where}{error.type}: {error.message}"[:1000]) from None
        except ChildDied as died:
            raise EvaluatorError(f"the reference process {died.how}. {self.child.output[-300:]}".strip()) from None
        except ChildTimeout:
            raise EvaluatorError(f"the reference did not answer within {REFERENCE_TIMEOUT_S:.0f} s.") from None


class ReferenceHost(TaskHost):
    """The reference's process for one workload of a task: makes inputs, parameters and what is expected of them."""

    def __init__(
        self, task: Task, workload: Workload, device: str, cache: tuple[str, ...], extra_env: dict[str, str]
    ) -> None:
        super().__init__(task, workload, device, cache, extra_env, secrets.randbits(31))
        self.parameter_seed: int | None = None
        self.generation = 0
        """Counts how often the source sets were drawn anew."""
        self.alone: tuple[float, Any] | None = None
        """When eager was last timed with no candidate alive, in time.monotonic's seconds, and that session."""
        self._init: torch.Tensor | None = None
        self._aside: torch.Tensor | None = None
        """CPU: a copy of the source sets, to write them again from."""
        self.twins: list[Twin] = []
        self.timed: TaskHost = self
        """The process in which eager is timed. On the CPU a twin: in one that draws inputs calls take longer."""
        try:
            self._start()
            if not self.gpu:
                self.timed = Twin(self)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.started()
        loaded = self.load()
        self.parameters = _parameters(loaded["parameters"])
        self.init_tree = loaded["init"]
        seeds = [secrets.randbits(63) for _ in range(3)]
        about = self.ask("describe", {"do": "describe", "seeds": seeds, "input_range": self.task.meta.input_range})
        self.tree = about["inputs"]
        self.input_specs = _specs(about["input_specs"])
        self.output_specs = _specs(about["output_specs"])
        self.output_leaves: list[Any] = about["outputs"]
        self.flops: int | None = int(about["flops"]) or None
        self.no_float64 = str(about["no_float64"])
        self.movable = bool(about["movable"])
        self.inputs_s = float(about["inputs_s"])
        if not self.output_specs:
            raise TaskBroken("Model.forward returns no tensor")
        self.capacity = self._capacity()
        try:
            self._lend_all(_specs(loaded["init_specs"]))
        except (RuntimeError, OSError) as error:
            raise EvaluatorError(f"memory for inputs and outputs cannot be had: {error}") from None
        self.ask("load", {"do": "give_init", "slots": self.buffers["init"].wire()})
        self._init = self.buffers["init"].base.clone()

    @property
    def alive(self) -> bool:
        """Whether its process and the one in which eager is timed have not ended."""
        return self.child.alive and self.timed.child.alive

    def compiled(self) -> TaskHost:
        """The process in which torch.compile is timed. On the CPU a new twin: compiling leaves its traces in a heap."""
        return self if self.gpu else Twin(self)

    def renew(self) -> None:
        """On the CPU another process for eager, as fresh as a candidate's: earlier batches leave their traces, too."""
        if self.timed is not self:
            self.timed.close()
            self.timed = Twin(self)

    def keep_eager_alone(self) -> None:
        """Ends all twins but the one in which eager is timed."""
        for twin in list(self.twins):
            if twin is not self.timed:
                twin.close()

    @property
    def held_bytes(self) -> int:
        """On the CPU the weights, too: each process has them as they are and as the constructor left them."""
        weights = 0 if self.gpu else 2 * (1 + len(self.twins)) * self.buffers["parameters"].nbytes
        return super().held_bytes + weights + (self._aside.numel() if self._aside is not None else 0)

    def close(self) -> None:
        """Its twins, too. What is large is let go: they know one another, and such garbage may lie about for long."""
        for twin in list(self.twins):
            twin.close()
        self._init = self._aside = self.alone = None
        super().close()

    def restore_init(self) -> None:
        """The constructor's tensors as they were given: an earlier candidate had them, and may have written there."""
        assert self._init is not None
        self.buffers["init"].base.copy_(self._init)
        self._settle()

    def _capacity(self) -> int:
        """How many input sets fit: as many as a batch can use, within the memory that is set aside."""
        kind = "cuda" if self.gpu else "cpu"
        one = max(nbytes(self.input_specs), nbytes(self.output_specs), 1)
        budget = min(SET_BYTES[kind], free_bytes(self.device) // SET_SHARE) if self.gpu else SET_BYTES[kind]
        most = min(budget // one, MOST_SETS[kind])
        if not self.movable:  # every set has to be drawn: no two may be alike
            most = min(most, int(INPUTS_S["fixed"] / max(self.inputs_s, 1e-6)))
        return max(most, SETS)

    def _lend_all(self, init_specs: list[Spec]) -> None:
        exact = [
            ("float64" if floating(dtype) and not self.no_float64 else dtype, shape)
            for dtype, shape in self.output_specs
        ]
        own = self.buffers
        own["init"] = Buffer(init_specs, self.device)
        own["parameters"] = Buffer([p.spec for p in self.parameters], self.device)
        own["source"] = Buffer(self.input_specs * self.capacity, self.device, guard=INPUT_GUARD)
        own["source"].poison(SETS * len(self.input_specs))
        for i in range(SETS):
            own[f"expected{i}"] = Buffer(self.output_specs, self.device)
            own[f"exact{i}"] = Buffer(exact, self.device)
        if self.gpu:
            own.update(timing_buffers(self.output_specs, self.capacity, self.device))
        self.lend(own)
        if self.gpu:
            self.lend_page()
        elif own["source"].nbytes <= 2 * SET_BYTES["cpu"]:
            self._aside = own["source"].base.clone()

    @property
    def source(self) -> Buffer:
        """The input sets."""
        return self.buffers["source"]

    @property
    def nbytes(self) -> int:
        """Least bytes that a call must move: inputs, parameters and outputs, each once."""
        trained = [p.spec for p in self.parameters]
        return nbytes([*self.input_specs, *trained, *self.output_specs])

    def entry(self, index: int, buffer: Buffer | None = None) -> dict[str, Any]:
        """Input set `index` as messages carry it, in `source` or another buffer of the same sets."""
        width = len(self.input_specs)
        slots = (buffer or self.source).slots[index * width : (index + 1) * width]
        return {"tree": self.tree, "slots": [slot.wire() for slot in slots]}

    def make_trials(self, seeds: list[int], recipes: list[str], *, perturb: bool) -> list[str]:
        """Fresh inputs in the first source sets, and expected outputs, from secret seeds (one for each of SETS).

        Returns the recipes that were used.
        """
        self.parameter_seed = seeds[0] ^ 0x5EED if perturb else None
        used = []
        for i, (seed, recipe) in enumerate(zip(seeds, recipes, strict=True)):
            message = {
                "do": "make",
                "seed": seed,
                "recipe": recipe,
                "parameter_seed": self.parameter_seed,
                "set": self.entry(i),
                "parameter_slots": self.buffers["parameters"].wire(),
                **self._answers(i),
            }
            used.append(str(self.ask("reference", message)["recipe"]))
        for twin in self.twins:
            twin.set_parameters(self.parameter_seed)
        return used

    def write_again(self, sets: range) -> None:
        """CPU: writes these source sets as they are, so that a baseline finds them in the caches as a kernel finds what
        was just given to it. Of large sets there is no copy; they are written from themselves, piece by piece."""
        start, size = self.source.base.data_ptr(), self._filled(sets.stop)
        if self._aside is not None:
            ctypes.memmove(start, self._aside.data_ptr(), size)
            return
        piece = ctypes.create_string_buffer(min(size, 1 << 20))
        for at in range(0, size, 1 << 20):
            length = min(1 << 20, size - at)
            ctypes.memmove(piece, start + at, length)
            ctypes.memmove(start + at, piece, length)

    def _filled(self, count: int) -> int:
        """Bytes from the start of the source to the end of so many sets."""
        slots = self.source.slots[: count * len(self.input_specs)]
        return slots[-1].offset + slots[-1].nbytes if slots else 0

    def expect(self, index: int) -> None:
        """Works out what is right for source set `index` as it stands, into expected0 and exact0."""
        self.ask("reference", {"do": "expect", "set": self.entry(index), **self._answers(0)})
        self.child.stop()  # its threads would spin on beside the next batch

    def _answers(self, i: int) -> dict[str, Any]:
        return {
            "float64": not self.no_float64,
            "expected": f"expected{i}",
            "expected_slots": self.buffers[f"expected{i}"].wire(),
            "exact": f"exact{i}",
            "exact_slots": self.buffers[f"exact{i}"].wire(),
        }

    def fill(self, count: int) -> None:
        """Fresh values in the first `count` source sets: the inputs of a batch, which nobody has seen."""
        self.generation += 1
        drawn = max(1, min(count, int(INPUTS_S["movable" if self.movable else "fixed"] / max(self.inputs_s, 1e-6))))
        message = {
            "do": "fill",
            "seeds": [secrets.randbits(63) for _ in range(drawn)],
            "sets": [self.entry(i) for i in range(count)],
            "shifts": [secrets.randbits(40) + 1 for _ in range(count)],
        }
        self.ask("reference", message)
        self.child.stop()  # as above
        if self._aside is not None:
            ctypes.memmove(self._aside.data_ptr(), self.source.base.data_ptr(), self._filled(count))

    def admit(self) -> tuple[tuple[str, ...], int]:
        """Flags of the task's admission, and the bytes of its inputs that are shown to matter."""
        seeds = [secrets.randbits(63) for _ in range(2)]
        found = self.ask(
            "reference",
            {
                "do": "admit",
                "seeds": seeds,
                "parameter_seed": secrets.randbits(31),
                "float64": not self.no_float64,
                "tolerance": self.task.meta.tolerance.model_dump(),
            },
        )
        return tuple(str(flag) for flag in found["flags"]), int(found["live_bytes"])


class Twin(TaskHost):
    """A second process of a reference's, which is only ever called, as a candidate is: it reads the reference's input
    sets. To be started while no candidate lives: constructor's arguments and parameters pass through buffers that
    candidates can write.

    On the CPU baselines are timed in such processes, each in its own: the heap of one that draws inputs is full of
    holes, and calls took 2 to 5 % longer there. Another one times eager against itself.
    """

    def __init__(self, reference: ReferenceHost) -> None:
        r = reference
        super().__init__(r.task, r.workload, r.device, r.cache, r.extra_env, r.init_seed)
        self.reference = reference
        try:
            self.started()
            try:
                self.buffers.update(timing_buffers(r.output_specs, r.capacity, self.device))
                self.lend({**self.buffers, **{name: r.buffers[name] for name in ("init", "parameters", "source")}})
                if self.gpu:
                    self.lend_page()
            except (RuntimeError, OSError, ChildError, ChildDied, ChildTimeout) as error:
                raise EvaluatorError(f"memory cannot be lent to the baseline's process: {error}") from None
            # What the reference has drawn otherwise than by torch, this process would draw anew.
            reference.restore_init()
            self.load(init=r.init_tree, init_slots=r.buffers["init"].wire())
            slots = reference.buffers["parameters"].wire()
            reference.ask("load", {"do": "give_parameters", "slots": slots, "pristine": True})
            self.ask("load", {"do": "take_parameters", "slots": slots})
            reference.ask("load", {"do": "give_parameters", "slots": slots, "pristine": False})
            self.set_parameters(reference.parameter_seed)
        except BaseException:
            self.close()
            raise
        reference.twins.append(self)

    def set_parameters(self, seed: int | None) -> None:
        """Makes its parameters those of the reference's trials with this seed."""
        self.ask("reference", {"do": "set_parameters", "parameter_seed": seed})

    def close(self) -> None:
        """Also leaves the reference's twins."""
        super().close()
        if self in self.reference.twins:
            self.reference.twins.remove(self)


class CandidateHost(Host):
    """A candidate process for one kernel on one workload. Every method raises CandidateFailed.

    `building`: the process that lets a Python-only kernel build itself: it may start programs, writes the kernel's
    cache, and sees inputs of a throw-away seed. `waiting`: the process is there already. Without `timed` it is lent no
    more than what checked calls need.
    """

    def __init__(
        self,
        kernel: Kernel,
        built: Built,
        reference: ReferenceHost,
        timeout_s: float,
        *,
        wrapper: tuple[str, ...] = (),
        write: tuple[str, ...] = (),
        extra_env: dict[str, str] | None = None,
        building: bool = False,
        waiting: Waiting | None = None,
        timed: bool = True,
    ) -> None:
        super().__init__(reference.device)
        self.kernel, self.reference, self.timeout_s = kernel, reference, timeout_s
        self.given: dict[str, str] = {}
        """The reference's names of parameters and buffers that are copied in, and the candidate's own."""
        self.perturbed, self.flag = True, ""
        """Whether parameters vary in trials, and what there is to be said of where they come from."""
        if waiting is not None:
            self.child, built = waiting.child, waiting.take(built)
        else:
            self.child = self._child(built, building, wrapper, write, extra_env)
        self.child.watched = not self.gpu
        try:
            self._start(built, prebuilt=not building, timed=timed)
        except BaseException:
            self.close()
            raise

    def _child(
        self,
        built: Built,
        building: bool,
        wrapper: tuple[str, ...],
        write: tuple[str, ...],
        extra_env: dict[str, str] | None,
    ) -> Child:
        cache = tuple(built.caches.values())
        limits = dict(LIMITS)
        if not self.gpu and not building and not wrapper:
            limits["DATA"] = MOST_DATA + 8 * self.reference.nbytes
        return Child(
            "candidate",
            read=(str(built.package), *(() if building else cache)),
            write=(*write, *(cache if building else ())),
            programs=building,
            limits=limits,
            device=self.device,
            extra_env={**built.env, **(extra_env or {})},
            wrapper=wrapper,
        )

    def _start(self, built: Built, *, prebuilt: bool, timed: bool) -> None:
        reference = self.reference
        try:
            self.child.started(60.0)
        except (ChildDied, ChildTimeout) as failure:
            raise EvaluatorError(f"the candidate's process does not start: {failure}. {self.child.output}") from None
        own = self.buffers
        sets = reference.capacity if timed else SETS
        reference.restore_init()
        own["slots"] = Buffer(reference.input_specs * sets, self.device, guard=INPUT_GUARD)
        own["slots"].poison(SETS * len(reference.input_specs))
        for i in range(SETS):
            own[f"landing{i}"] = Buffer(reference.output_specs, self.device, guard=GUARD)
        if timed:
            own.update(timing_buffers(reference.output_specs, reference.capacity, self.device))
        try:
            self.lend({**own, **{name: reference.buffers[name] for name in ("init", "parameters")}})
            if self.gpu and timed:
                self.lend_page()
        except (ChildError, ChildDied, ChildTimeout) as failure:
            raise EvaluatorError(f"memory cannot be lent to the candidate: {failure}. {self.child.output}") from None
        loaded = self.ask(
            "load",
            {
                "do": "load",
                "package": str(built.package),
                "prebuilt": prebuilt,
                "device": self.device,
                "dtype": reference.task.meta.dtype,
                "allow_tf32": reference.task.meta.allow_tf32,
                "init": reference.init_tree,
                "init_slots": reference.buffers["init"].wire(),
                "init_seed": reference.init_seed,
            },
        )
        try:
            self._match(_parameters(loaded["parameters"]))
        except (KeyError, TypeError, ValueError):
            raise CandidateFailed("error", "the candidate's runner gave no account of itself.", stage="load") from None

    def _match(self, own: list[Parameter]) -> None:
        """Finds out which of its tensors get which of the reference's values. Every trained parameter must be there;
        buffers that a kernel does without are its own affair, since it is wrong where it needs them.

        By name, or in a Python-only kernel by the values at construction, which are the reference's where it makes the
        same parameters in the same order. One that keeps others (packed, transposed) is checked with the
        constructor's values alone; it is refused where trials change constants of the reference's: they would tell
        nothing of a kernel that leaves a branch out whose scale begins at zero.
        """
        shapes = {p.name: p.spec[1] for p in own}
        self.given = {p.name: p.name for p in self.reference.parameters if shapes.get(p.name) == p.spec[1]}
        extra = [p.name for p in own if p.trained and p.name not in self.given]
        missing = [p for p in self.reference.parameters if p.trained and p.name not in self.given]
        if not missing and not extra:
            return
        python = self.kernel.language in (Language.MODULE, Language.TRITON)
        if python and (by_value := self._by_value(own)) is not None:
            self.given = by_value
            self.flag = "parameters by their values at construction, not by name"
            return
        varied = [p.name for p in self.reference.parameters if p.varied]
        if python and not varied:
            self.given, self.perturbed = {}, False
            self.flag = "parameters by seed and construction order, not by name"
            return
        shown = [f"{p.name} {list(p.spec[1])}" for p in missing[:8]]
        text = "; ".join(
            [f"missing or of another shape: {', '.join(shown)}"] * bool(missing)
            + [f"not in the reference: {', '.join(extra[:8])}"] * bool(extra)
            + [f"constant at construction, and other values in checks: {', '.join(varied[:8])}"] * python
        )
        raise CandidateFailed(
            "error", f"ModelNew's parameters must have the names and shapes of Model's; {text}.", stage="load"
        )

    def _by_value(self, own: list[Parameter]) -> dict[str, str] | None:
        """The candidate's name for each of the reference's tensors, where all that are trained have their counterpart
        of the same values, those that are alike in order; None where they have not."""
        rest, found = list(own), {}
        for wanted in self.reference.parameters:
            for at, mine in enumerate(rest):
                if (mine.spec, mine.trained, mine.digest) == (wanted.spec, wanted.trained, wanted.digest):
                    found[wanted.name] = rest.pop(at).name
                    break
            else:
                if wanted.trained:
                    return None
        return None if any(p.trained for p in rest) else found

    def give_parameters(self) -> None:
        """Copies the reference's present parameters in."""
        slots = zip(self.reference.parameters, self.reference.buffers["parameters"].wire(), strict=True)
        given = [(self.given[p.name], slot) for p, slot in slots if p.name in self.given]
        if given:
            names, lent = zip(*given, strict=True)
            self.ask("load", {"do": "parameters", "names": list(names), "slots": list(lent)})

    def entry(self, index: int) -> dict[str, Any]:
        """Input set `index` of the lent slots."""
        return self.reference.entry(index, self.buffers["slots"])

    def give_inputs(self, sets: range) -> None:
        """Copies source sets into the slots, which are laid out alike."""
        span = self._span(sets)
        mine, theirs = self.buffers["slots"].base[span], self.reference.source.base[span]
        if self.gpu:
            mine.copy_(theirs)
            self._settle()
        else:  # not by torch: its threads would spin on for milliseconds, on cores that the next batch needs
            ctypes.memmove(mine.data_ptr(), theirs.data_ptr(), mine.numel())

    def give_in_part(self, sets: range) -> Callable[[], None]:
        """GPU: as `give_inputs`, but scattered pieces of every input, which nobody knows, are inverted; returns what
        puts them right, which takes microseconds."""
        import torch

        both = (self.reference.source.base, self.buffers["slots"].base)
        theirs, mine = (base.view(torch.int64).view(-1, PIECE // 8) for base in both)
        pieces = self._held_back(sets)
        theirs[pieces] = ~theirs[pieces]
        self.give_inputs(sets)
        right = ~theirs[pieces]
        theirs[pieces] = right

        def complete() -> None:
            # No kernel that has not run before: loading one waits for streams that wait for the candidate.
            mine[pieces] = right

        return complete

    def _held_back(self, sets: range) -> torch.Tensor:
        """Indices of secretly chosen pieces of these sets' inputs: of each, one in HELD_BACK, and at most MOST_HELD."""
        import torch

        rng = torch.Generator(self.device).manual_seed(secrets.randbits(63))
        slots, width = self.reference.source.slots, len(self.reference.input_specs)
        found = [torch.empty(0, dtype=torch.int64, device=self.device)]
        for i in range(width):
            if not slots[i].nbytes:
                continue
            size = max(slots[i].nbytes // PIECE, 1)
            count = min(max(size // HELD_BACK, 1), MOST_HELD)
            first = torch.tensor([slots[n * width + i].offset // PIECE for n in sets], device=self.device)
            at = torch.randint(size, (len(sets), count), generator=rng, device=self.device)
            found.append((at + first[:, None]).flatten())
        return torch.cat(found)

    def _span(self, sets: range) -> slice:
        slots, width = self.reference.source.slots, len(self.reference.input_specs)
        if not sets or not width:
            return slice(0, 0)
        last = slots[sets.stop * width - 1]
        return slice(slots[sets.start * width].offset, last.offset + last.nbytes)

    def run(self, *, guard: bool = True, stage: str = "check") -> list[dict[str, Any]]:
        """Runs forward on the first SETS sets into poisoned landing buffers; returns what was said of the outputs."""
        for i in range(SETS):
            self.buffers[f"landing{i}"].poison()
        self._settle()
        sets = [
            {**self.entry(i), "landing": f"landing{i}", "landing_slots": self.buffers[f"landing{i}"].wire()}
            for i in range(SETS)
        ]
        reply = self.ask(stage, {"do": "check", "sets": sets, "guard": guard})
        if reply.get("overrun"):
            raise CandidateFailed("error", f"out of bounds: {str(reply['overrun'])[:300]}.", stage=stage)
        outputs = reply.get("outputs")
        if not isinstance(outputs, list) or len(outputs) != SETS:
            raise CandidateFailed("error", "the candidate's runner gave no account of its outputs.", stage=stage)
        return outputs

    def compare(self, index: int, said: Any) -> list[check.Comparison]:
        """Compares landing buffer `index` with what was expected of that set. Raises CandidateFailed on form."""
        reference, landing = self.reference, self.buffers[f"landing{index}"]
        self.check_form(said)
        if not landing.guards_intact():
            raise CandidateFailed("rule", "memory around the landing buffer was overwritten.", stage="out of bounds")
        return self.compare_with(index, [landing.tensor(i) for i in range(len(reference.output_specs))])

    def compare_with(self, index: int, got: list[Any]) -> list[check.Comparison]:
        """Compares output tensors with expected and exact buffer `index`."""
        reference = self.reference
        names = [name for name, leaf in reference.output_leaves if _is_tensor(leaf)]
        return [
            check.compare(
                name,
                got[i],
                reference.buffers[f"expected{index}"].tensor(i),
                reference.buffers[f"exact{index}"].tensor(i),
                reference.task.meta.tolerance,
            )
            for i, name in enumerate(names)
        ]

    def check_form(self, said: Any) -> None:
        """Structure, dtypes, shapes and devices of what forward is said to have returned."""
        reference = self.reference
        said = said if isinstance(said, dict) else {}
        tensors, got_leaves = said.get("tensors"), said.get("leaves")
        if not isinstance(tensors, list) or not isinstance(got_leaves, list):
            raise CandidateFailed("error", "the candidate's runner gave no account of its outputs.", stage="check")
        want_names = [name for name, _ in reference.output_leaves]
        try:
            got_names = [str(leaf[0]) for leaf in got_leaves]
            got_values = [leaf[1] for leaf in got_leaves]
            specs = [(str(t[0]), tuple(int(n) for n in t[1]), str(t[3])) for t in tensors]
        except (TypeError, ValueError, IndexError, KeyError):
            raise CandidateFailed(
                "error", "the candidate's account of its outputs is garbled.", stage="check"
            ) from None
        if got_names != want_names:
            raise CandidateFailed(
                "form",
                f"forward returns {got_names or 'nothing'} where the reference returns {want_names}.",
                stage="check",
            )
        for (name, want), got in zip(reference.output_leaves, got_values, strict=True):
            if _is_tensor(want) != _is_tensor(got) or (not _is_tensor(want) and want != got):
                shown = ["a tensor" if _is_tensor(leaf) else repr(leaf)[:200] for leaf in (got, want)]
                raise CandidateFailed(
                    "form", f"output {name} is {shown[0]}, the reference's is {shown[1]}.", stage="check"
                )
        kind = self.device.partition(":")[0]
        if len(specs) != len(reference.output_specs):
            raise CandidateFailed("error", "the candidate's account of its outputs is garbled.", stage="check")
        for i, ((dtype, shape), got) in enumerate(zip(reference.output_specs, specs, strict=True)):
            for what, want_it, got_it in (
                ("shape", list(shape), list(got[1])),
                ("dtype", dtype, got[0]),
                ("device", kind, got[2]),
            ):
                if want_it != got_it:
                    raise CandidateFailed(
                        "form", f"output {i} has {what} {got_it}, the reference's has {want_it}.", stage="check"
                    )

    def kept(self, sets: set[int]) -> bool:
        """Whether these input sets are as they were lent, bit by bit, after timed calls."""
        width = len(self.reference.input_specs)
        places = [n * width + i for n in sets for i in range(width)]
        return all(_same(self.buffers["slots"].raw(at), self.reference.source.raw(at)) for at in places)

    def inputs_intact(self) -> bool:
        """Whether the checked input sets are as they were lent, bit by bit, and nothing around them was written."""
        import torch

        slots, source, width = self.buffers["slots"], self.reference.source, len(self.reference.input_specs)
        same = all(torch.equal(slots.raw(i), source.raw(i)) for i in range(SETS * width))
        return same and slots.guards_intact(SETS * width)

    def profile(self, nvtx_range: str) -> None:
        """One call inside an NVTX range."""
        self.ask("profile", {"do": "profile", "set": self.entry(0), "range": nvtx_range})

    def ask(self, stage: str, message: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Asks the candidate; what goes wrong is a CandidateFailed of this stage."""
        try:
            return self.child.ask(message, timeout or self.timeout_s)
        except ChildError as error:
            raise CandidateFailed("error", f"{error.type}: {error.message}"[:2000], error=error, stage=stage) from None
        except ChildTimeout:
            raise CandidateFailed("timeout", f"{stage} took longer than {self.timeout_s:g} s.", stage=stage) from None
        except ChildDied as died:
            raise CandidateFailed("error", f"the process {died.how} during {stage}.", stage=stage) from None


def timing_buffers(output_specs: list[Spec], count: int, device: str) -> dict[str, Buffer]:
    """What a process is lent so that its timed outputs can be read: a table of addresses, and on a GPU an arena."""
    found = {}
    if device != "cpu":
        # Twice the outputs of a full batch, since segments are split unevenly, and room for what else a call allocates.
        one = nbytes(output_specs)
        size = min(2 * count * one + (1 << 30), 3 * SET_BYTES["cuda"] + 4 * one)
        found["arena"] = Buffer([("uint8", (size,))], device)
    return {**found, "table": Buffer([("int64", (max(count * len(output_specs), 1),))], "cpu")}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two runs of bytes are equal. On the CPU not by torch, whose threads would spin on beside a batch."""
    import torch

    if one.is_cuda:
        return torch.equal(one, other)
    return not _LIBC.memcmp(one.data_ptr(), other.data_ptr(), one.numel())


def nbytes(specs: list[Spec]) -> int:
    """Bytes of tensors with these specs."""
    return sum(Slot(0, dtype, shape).nbytes for dtype, shape in specs)


def first_errors(comparisons: list[check.Comparison]) -> tuple[OutputError, ...]:
    """The errors among comparisons."""
    return tuple(c.error for c in comparisons if c.error)


def _specs(wire: list[Any]) -> list[Spec]:
    return [(str(dtype), tuple(int(n) for n in shape)) for dtype, shape in wire]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, dict) and "t" in leaf


def floating(dtype: str) -> bool:
    """Whether a dtype's name is one of floating point."""
    return dtype.startswith(("float", "bfloat"))
