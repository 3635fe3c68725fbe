"""The supervisor's side of the reference and of a candidate: what is lent to whom, asked, and believed.

Buffers, by name: `init` and `parameters`; for each of SETS input sets held at once `in0`, `expected0`, `exact0` (only
the reference ever sees the last two) and, for each candidate, `landing0`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from cudaforge.engine import check
from cudaforge.engine.builder import Built
from cudaforge.engine.memory import GUARD, Buffer
from cudaforge.engine.protocol import MAX_FDS, Spec
from cudaforge.engine.sandbox import Child, ChildDied, ChildError, ChildTimeout
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import OutputError
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task, Workload

SETS = 2
"""Input sets that are lent at once, so that two outputs are held before either is looked at."""
REFERENCE_TIMEOUT_S = 900.0
LIMITS = {"NPROC": 4096, "NOFILE": 4096}
"""Per user namespace or user; generous, since OpenMP and CUDA start threads."""


class TaskBroken(Exception):  # noqa: N818 - the caller decides what it means
    """The task's own code failed: no verdict on any kernel is possible."""


class CandidateFailed(Exception):  # noqa: N818 - an outcome that becomes a verdict
    """The candidate crashed, raised, hung or returned something of the wrong form.

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


def _parameters(wire: list[Any]) -> list[Parameter]:
    return [Parameter(str(n), (str(dtype), tuple(shape)), bool(trained)) for n, dtype, shape, trained in wire]


def lend(child: Child, buffers: dict[str, Buffer], timeout: float = 120.0) -> None:
    """Maps buffers into a child, a few file descriptors a message."""
    items = list(buffers.items())
    for start in range(0, len(items), MAX_FDS):
        wires, fds = [], []
        for name, buffer in items[start : start + MAX_FDS]:
            wire, fd = buffer.lend()
            wires.append({"id": name, **wire})
            if fd is not None:
                fds.append(fd)
        child.ask({"do": "map", "buffers": wires}, timeout, fds)


@dataclass
class Trial:
    """What one input set was made from, and the checksum of the lent inputs."""

    seed: int
    tree: Any
    checksum: int


class ReferenceHost:
    """A reference process for one workload of a task. Raises TaskBroken where the task's code fails."""

    def __init__(self, task: Task, workload: Workload, device: str, extra_env: dict[str, str]) -> None:
        self.task, self.workload, self.device = task, workload, device
        self.prepared: set[str] = set()
        self.buffers: dict[str, Buffer] = {}
        self.trials: list[Trial] = []
        self.init_seed = secrets.randbits(31)
        self.child = Child(["-m", "cudaforge.engine.reference"], extra_env=extra_env)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        meta = self.task.meta
        self.layers = self._ask({"do": "hello", "limits": LIMITS})["layers"]
        loaded = self._ask(
            {
                "do": "load",
                "source": self.task.source,
                "file": f"{self.task.name}.py",
                "overrides": self.workload.overrides,
                "dtype": meta.dtype,
                "allow_tf32": meta.allow_tf32,
                "device": self.device,
                "init_seed": self.init_seed,
            }
        )
        self.parameters = _parameters(loaded["parameters"])
        self.init_tree = loaded["init"]
        about = self._ask({"do": "describe", "seed": secrets.randbits(63)})
        self.input_specs = _specs(about["input_specs"])
        self.output_specs = _specs(about["output_specs"])
        self.output_leaves: list[Any] = about["outputs"]
        self.flops: int | None = int(about["flops"]) or None
        self.no_float64 = str(about["no_float64"])
        if not self.output_specs:
            raise TaskBroken("Model.forward returns no tensor")
        exact = [
            ("float64" if _floating(dtype) and not self.no_float64 else dtype, shape)
            for dtype, shape in self.output_specs
        ]
        try:
            self.buffers["init"] = Buffer(_specs(loaded["init_specs"]), self.device)
            self.buffers["parameters"] = Buffer([p.spec for p in self.parameters], self.device)
            for i in range(SETS):
                self.buffers[f"in{i}"] = Buffer(self.input_specs, self.device)
                self.buffers[f"expected{i}"] = Buffer(self.output_specs, self.device)
                self.buffers[f"exact{i}"] = Buffer(exact, self.device)
        except (RuntimeError, OSError) as error:
            raise EvaluatorError(f"memory for inputs and outputs cannot be had: {error}") from None
        lend(self.child, self.buffers)
        self._ask({"do": "give_init", "slots": self.buffers["init"].wire()})

    @property
    def nbytes(self) -> int:
        """Least bytes that a call must move: inputs, parameters and outputs, each once."""
        from cudaforge.engine.protocol import Slot

        trained = [p.spec for p in self.parameters]
        return sum(Slot(0, d, s).nbytes for d, s in [*self.input_specs, *trained, *self.output_specs])

    def make_trials(self, seeds: list[int], *, perturb: bool) -> None:
        """Fresh inputs in every set, and expected outputs, from secret seeds (one for each of SETS)."""
        parameter_seed = seeds[0] ^ 0x5EED if perturb else None
        self.trials = []
        for i, seed in enumerate(seeds):
            reply = self._ask(
                {
                    "do": "make",
                    "seed": seed,
                    "parameter_seed": parameter_seed,
                    "float64": not self.no_float64,
                    "inputs": f"in{i}",
                    "input_slots": self.buffers[f"in{i}"].wire(),
                    "parameter_slots": self.buffers["parameters"].wire(),
                    "expected": f"expected{i}",
                    "expected_slots": self.buffers[f"expected{i}"].wire(),
                    "exact": f"exact{i}",
                    "exact_slots": self.buffers[f"exact{i}"].wire(),
                }
            )
            self.trials.append(Trial(seed, reply["tree"], self.buffers[f"in{i}"].checksum()))

    def sets(self) -> list[dict[str, Any]]:
        """The lent input sets as messages carry them."""
        return [
            {"tree": trial.tree, "buffer": f"in{i}", "slots": self.buffers[f"in{i}"].wire()}
            for i, trial in enumerate(self.trials)
        ]

    def prepare(self, what: str) -> None:
        """Readies `eager` or `compile:MODE` for timing; done once for each."""
        if what not in self.prepared:
            self._ask({"do": "prepare", "what": what, "sets": self.sets(), "warm_s": 0.1})
            self.prepared.add(what)

    def block(self, what: str, calls: int) -> list[float]:
        """A block of timed calls; on a GPU microseconds of each."""
        return [float(x) for x in self._ask({"do": "block", "what": what, "calls": calls})["samples_us"]]

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.child.ask(message, REFERENCE_TIMEOUT_S)
        except ChildError as error:
            if "out of memory" in error.message.lower():
                raise EvaluatorError(f"the reference has too little memory: {error.message[:300]}") from None
            ours = [frame for frame in error.frames if frame[0] == f"{self.task.name}.py"]
            where = f"{ours[-1][0]}:{ours[-1][1]}: " if ours else ""
            raise TaskBroken(f"{where}{error.type}: {error.message}"[:1000]) from None
        except ChildDied as died:
            raise EvaluatorError(f"the reference process {died.how}. {self.child.output[-300:]}".strip()) from None
        except ChildTimeout:
            raise EvaluatorError(f"the reference did not answer within {REFERENCE_TIMEOUT_S:.0f} s.") from None

    def close(self) -> None:
        """Ends the process and frees the buffers."""
        self.child.close()
        for buffer in self.buffers.values():
            buffer.close()
        self.buffers = {}


@dataclass
class CandidateHost:
    """A candidate process for one kernel on one workload. Every method raises CandidateFailed."""

    kernel: Kernel
    built: Built
    reference: ReferenceHost
    timeout_s: float
    wrapper: tuple[str, ...] = ()
    seeded: bool = False
    """Parameters come from the lent seed and the same construction order, not by name."""
    landing: dict[str, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reference = self.reference
        self.device = reference.device
        self.child = Child(["-m", "cudaforge.engine.candidate"], extra_env=self.built.caches, wrapper=self.wrapper)
        try:
            self._ask("start", {"do": "hello", "limits": LIMITS}, timeout=max(self.timeout_s, 60))
            for i in range(SETS):
                self.landing[f"landing{i}"] = Buffer(reference.output_specs, self.device, guard=GUARD)
            lent = {name: b for name, b in reference.buffers.items() if name.startswith(("in", "parameters"))}
            lend(self.child, {**lent, **self.landing})
            loaded = self._ask(
                "load",
                {
                    "do": "load",
                    "package": str(self.built.package),
                    "device": self.device,
                    "dtype": reference.task.meta.dtype,
                    "allow_tf32": reference.task.meta.allow_tf32,
                    "init": reference.init_tree,
                    "init_slots": reference.buffers["init"].wire(),
                    "init_seed": reference.init_seed,
                },
            )
            self._match(_parameters(loaded["parameters"]))
        except BaseException:
            self.close()
            raise

    def _match(self, own: list[Parameter]) -> None:
        """Parameters must have the reference's names and shapes; only a Python-only kernel may be seeded instead."""
        wanted = {p.name: p.spec[1] for p in self.reference.parameters}
        found = {p.name: p.spec[1] for p in own}
        missing = [f"{n} {list(s)}" for n, s in wanted.items() if found.get(n) != s]
        extra = [p.name for p in own if p.trained and p.name not in wanted]
        if not missing and not extra:
            return
        if self.kernel.language in (Language.MODULE, Language.TRITON):
            self.seeded = True
            return
        text = "; ".join(
            [f"missing or of another shape: {', '.join(missing[:8])}"] * bool(missing)
            + [f"not in the reference: {', '.join(extra[:8])}"] * bool(extra)
        )
        raise CandidateFailed(
            "error", f"ModelNew's parameters must have the names and shapes of Model's; {text}.", stage="load"
        )

    def give_parameters(self) -> None:
        """Copies the reference's present parameters in, by name."""
        if not self.seeded and self.reference.parameters:
            names = [p.name for p in self.reference.parameters]
            slots = self.reference.buffers["parameters"].wire()
            self._ask("load", {"do": "parameters", "names": names, "slots": slots})

    def run(self, stage: str = "check") -> list[dict[str, Any]]:
        """Runs forward on every lent set into poisoned landing buffers; returns what was said of the outputs."""
        for buffer in self.landing.values():
            buffer.poison()
        sets = [
            {**entry, "landing": f"landing{i}", "landing_slots": self.landing[f"landing{i}"].wire()}
            for i, entry in enumerate(self.reference.sets())
        ]
        return list(self._ask(stage, {"do": "run", "sets": sets})["outputs"])

    def compare(self, index: int, said: dict[str, Any]) -> list[check.Comparison]:
        """Compares landing buffer `index` with what was expected of that set. Raises CandidateFailed on form."""
        reference, landing = self.reference, self.landing[f"landing{index}"]
        self._check_form(said)
        if not landing.guards_intact():
            raise CandidateFailed("rule", "memory around the landing buffer was overwritten.", stage="out of bounds")
        names = [name for name, leaf in reference.output_leaves if _is_tensor(leaf)]
        results = []
        for i, name in enumerate(names):
            expected = reference.buffers[f"expected{index}"].tensor(i)
            exact = reference.buffers[f"exact{index}"].tensor(i)
            results.append(check.compare(name, landing.tensor(i), expected, exact, reference.task.meta.tolerance))
        return results

    def _check_form(self, said: dict[str, Any]) -> None:
        reference = self.reference
        tensors = said.get("tensors")
        got_leaves = said.get("leaves")
        if not isinstance(tensors, list) or not isinstance(got_leaves, list):
            raise CandidateFailed("error", "the candidate's runner gave no account of its outputs.", stage="check")
        want_names = [name for name, _ in reference.output_leaves]
        got_names = [str(leaf[0]) for leaf in got_leaves]
        if got_names != want_names:
            raise CandidateFailed(
                "form",
                f"forward returns {got_names or 'nothing'} where the reference returns {want_names}.",
                stage="check",
            )
        for (name, want), (_, got) in zip(reference.output_leaves, got_leaves, strict=True):
            if _is_tensor(want) != _is_tensor(got) or (not _is_tensor(want) and want != got):
                shown = ["a tensor" if _is_tensor(leaf) else repr(leaf) for leaf in (got, want)]
                raise CandidateFailed(
                    "form", f"output {name} is {shown[0]}, the reference's is {shown[1]}.", stage="check"
                )
        for i, (dtype, shape) in enumerate(reference.output_specs):
            got_dtype, got_shape, got_device = tensors[i][0], tuple(tensors[i][1]), tensors[i][2]
            if got_shape != tuple(shape):
                raise CandidateFailed(
                    "form", f"output {i} has shape {list(got_shape)}, the reference's has {list(shape)}.", stage="check"
                )
            if got_dtype != dtype:
                raise CandidateFailed(
                    "form", f"output {i} has dtype {got_dtype}, the reference's has {dtype}.", stage="check"
                )
            if got_device != self.device.split(":")[0]:
                raise CandidateFailed(
                    "form", f"output {i} is on {got_device}, not on {self.device.split(':')[0]}.", stage="check"
                )

    def inputs_intact(self) -> bool:
        """Whether the lent inputs are as they were made."""
        return all(
            self.reference.buffers[f"in{i}"].checksum() == trial.checksum
            for i, trial in enumerate(self.reference.trials)
        )

    def prepare(self) -> None:
        """Readies timing: the candidate copies the inputs to its own memory and warms up."""
        self._ask("timing", {"do": "prepare", "sets": self.reference.sets(), "warm_s": 0.1})

    def block(self, calls: int) -> list[float]:
        """A block of timed calls; on a GPU microseconds of each."""
        reply = self._ask("timing", {"do": "block", "calls": calls})
        samples = reply.get("samples_us")
        if not isinstance(samples, list) or (self.device != "cpu" and len(samples) != calls):
            raise CandidateFailed("error", "the candidate's runner gave no times.", stage="timing")
        return [max(float(x), 1e-3) for x in samples]

    def check_last(self) -> list[check.Comparison]:
        """Compares the output of the last timed call."""
        landing = self.landing["landing0"]
        landing.poison()
        message = {"do": "land_last", "landing": "landing0", "landing_slots": landing.wire()}
        reply = self._ask("timing", message)
        index = reply["set"] if reply.get("set") in range(len(self.reference.trials)) else 0
        if index:
            # The landing buffers are alike: what landed in the first is compared with the set it belongs to.
            self.landing[f"landing{index}"].base.copy_(landing.base)
        return self.compare(index, reply["output"])

    def profile(self, nvtx_range: str) -> None:
        """One call inside an NVTX range."""
        self._ask("profile", {"do": "profile", "set": self.reference.sets()[0], "range": nvtx_range})

    def _ask(self, stage: str, message: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        try:
            return self.child.ask(message, timeout or self.timeout_s)
        except ChildError as error:
            raise CandidateFailed("error", f"{error.type}: {error.message}"[:2000], error=error, stage=stage) from None
        except ChildTimeout:
            raise CandidateFailed("timeout", f"{stage} took longer than {self.timeout_s:g} s.", stage=stage) from None
        except ChildDied as died:
            raise CandidateFailed("error", f"the process {died.how} during {stage}.", stage=stage) from None

    def close(self) -> None:
        """Ends the process and frees its landing buffers."""
        self.child.close()
        for buffer in self.landing.values():
            buffer.close()
        self.landing = {}


def first_errors(comparisons: list[check.Comparison]) -> tuple[OutputError, ...]:
    """The errors among comparisons."""
    return tuple(c.error for c in comparisons if c.error)


def _specs(wire: list[Any]) -> list[Spec]:
    return [(str(dtype), tuple(int(n) for n in shape)) for dtype, shape in wire]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, dict) and "t" in leaf


def _floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))
