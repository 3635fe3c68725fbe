"""Batches of calls of one thing - the kernel, or a baseline - by a clock outside of its process.

Every call of a batch has an input set of its own, with values that were drawn for this batch and written where the
candidate can see them only just before the clock starts; the outputs of all calls are held, and the supervisor reads
them where they lie the moment the clock stops. So no result can be kept from an earlier call, none can be worked out
early, and none can be handed in late. session.py puts benches side by side.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cudaforge.engine import frozen, gate, timing
from cudaforge.engine.hosts import CandidateFailed, CandidateHost, Host, ReferenceHost
from cudaforge.engine.sandbox import ChildDied, ChildError, ChildTimeout
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import Interval, Samples

BATCH_S = {"cpu": 0.015, "gate": 2.5e-3, "host": 5e-3}
"""How long a batch of calls should last at least: the uncertainty of the clock's constant (microseconds on a GPU, some
tens of them on a CPU) is lost in it."""
SHORT = 0.4
"""A batch that lasts for less than this share of that is too short to count, where it could be longer."""
FEWEST_CALLS, SLOW_S = 3, 0.05
"""Calls of a batch at least, unless one alone takes so long: the first one finds the device in another state."""
QUEUE_S = 3.0
"""Queueing a batch takes milliseconds. One that has not come back by then waits for the GPU on the host."""
TRIES = 2
"""A CPU batch in which the process lost a core to somebody else is measured again, so often in all; the last counts."""
PIECES, PIECE = 64, 64
"""Pieces of the outputs that are copied out as soon as the done flag is seen, and their bytes."""
LATE_S = 40e-6
"""GPU work beyond the usual after the done flag from which on a batch is suspect. Two contexts take turns on a GPU, so
work of the candidate's delays the supervisor's own by as much."""
LATE_SHARE = 0.01
"""After a long batch, up to 0.2 ms passes before the GPU serves another context. Less work than this share of a batch
gains nothing."""
CLOCK_SHARE, CLOCK_S = 0.1, 40e-6
"""How far a process's own events may be from the gate; beyond is no noise."""

CONSTANT_SETS = 16
"""Input sets that are drawn before a CPU clock's constant is measured."""
STILL_S = 3e-4
"""What it may take to make a process stand still; nothing can be gained in so much of a batch."""
WOKEN = "it ran while it was stopped"
ASIDE = 5
"""How often times that do not count are taken."""
MOST_SPREAD, MOST_EXTENT, MOST_ROWS = 16, 256 << 20, 1 << 17
"""On the CPU a strided output that lies so many times wider than its elements need, and so many bytes wide, is read row
by row; any other with what lies between its elements. Rows of a candidate's, at most: a million take seconds."""

Tensors = list[torch.Tensor]


class Bench:
    """One thing that is timed in batches; `what` is its name in its process. The subclasses are the clocks."""

    kind = ""
    clock = ""
    sets_per_call = 1

    def __init__(self, host: Host, what: str, reference: ReferenceHost, constant_s: float, timeout_s: float) -> None:
        self.host, self.what, self.reference = host, what, reference
        self.constant_s, self.timeout_s = constant_s, timeout_s
        self.calls, self.arranged = 1, 1
        self.queue_calls = 1 << 30
        """Calls that can be queued at once, where that is known to be limited."""
        self.memory: dict[str, Any] = {}
        """What the process says of the memory it was lent: bytes `used`, and bytes taken `outside` of it."""
        self.samples_us: list[float] = []
        """Mean time of a call, one number a batch."""
        self.event_us: list[float] = []
        self.host_us: list[float] = []
        self.warm_us: list[float] = []
        self.single_us: list[float] = []
        self.spent_s = 0.0
        self.batches = 0
        self.dropped = 0
        """Batches that were measured again, since somebody else had taken a core."""
        self.suspicions: dict[str, list[str]] = {}
        """Signs of foul play: what was seen, for each batch that showed one."""
        self.foul, self.fouls = False, 0
        """Whether the last batch showed one: such a batch is no sample. How many did: most of them are a verdict."""
        self.read: dict[int, Tensors] = {}
        """Outputs of the picked calls of the last batch, by input set."""
        self.generation = 0
        """The drawing of inputs that the last batch ran on."""

    @property
    def candidate(self) -> CandidateHost | None:
        """The host, where it is a candidate's."""
        return self.host if isinstance(self.host, CandidateHost) else None

    @property
    def sets(self) -> int:
        """Input sets that a batch needs."""
        return self.calls * self.sets_per_call

    @property
    def samples(self) -> Samples:
        """What is stored."""
        return timing.samples_of(self.samples_us, self.clock, self.calls)

    def batch(self, order: list[int], picks: set[int]) -> None:
        """Runs one batch on the reference's present source sets, in this order; reads the outputs of the `picks`.

        The process stands still afterwards. Raises CandidateFailed for a candidate, EvaluatorError for a baseline.
        """
        self.foul = False
        seconds = max(self._measure(order, picks), 1e-9)
        self.generation = self.reference.generation
        self.spent_s += seconds * len(order)
        self.samples_us.append(seconds * 1e6)
        self.batches += 1
        self.fouls += self.foul
        self.host.child.stop()

    def _measure(self, order: list[int], picks: set[int]) -> float:
        """Seconds a call."""
        raise NotImplementedError

    @property
    def most_calls(self) -> int:
        """Calls of a batch at most."""
        return self.reference.capacity // self.sets_per_call

    @property
    def too_short(self) -> bool:
        """Whether the last batch was much shorter than it should be, and could be longer: its calls were slower when
        their number was chosen. Only the timed ones tell, so that nobody gains by slow trials."""
        short = self.samples_us[-1] * self.calls < SHORT * BATCH_S[self.kind] * 1e6
        return short and self.calls < min(self.most_calls, self.queue_calls)

    def grow(self) -> None:
        """More calls a batch, by what a call took in the last one."""
        wanted = round(BATCH_S[self.kind] * 1e6 / self.samples_us[-1])
        self.calls = min(max(wanted, 2 * self.calls), self.most_calls)
        self.reference.fill(self.sets)
        self.give(range(self.sets))
        self.arrange(self.sets, held=self.calls)
        self.host.child.stop()

    def forget(self) -> None:
        """Drops what was measured so far."""
        for values in (self.samples_us, self.event_us, self.host_us):
            values.clear()

    def choose_calls(self) -> None:
        """Finds out how many calls make a batch."""
        most = self.most_calls
        # A single call says little: the first ones after a pause are slow. So the batch grows until it lasts.
        for tries in range(4):
            once = max(min(self._trial() for _ in range(3 - min(tries, 2))), 1e-6)
            least = FEWEST_CALLS if once < SLOW_S else 1
            wanted = max(min(max(round(BATCH_S[self.kind] / once + 0.5), least), most), 1)
            if tries and wanted < 1.5 * self.calls:
                break
            self.calls = max(wanted, self.calls)
            self.reference.fill(self.sets)
            self.give(range(self.sets))
            self.arrange(self.sets, held=self.calls)

    def _trial(self) -> float:
        """Seconds a call of one batch as it stands, roughly."""
        raise NotImplementedError

    def arrange(self, sets: int, *, held: int, warm_s: float = 0.0, fresh: bool = False) -> None:
        """Tells the process which sets it is called on, warms it up, and lets it take the memory of a batch.

        `fresh`: what is called is made anew, as torch.compile's result is.
        """
        candidate = self.candidate
        entries = [candidate.entry(i) if candidate else self.reference.entry(i) for i in range(sets)]
        message = {"do": "arrange", "what": self.what, "sets": entries, "warm_s": warm_s, "held": held, "fresh": fresh}
        self.arranged = max(sets, 1)
        reply = self.ask({**message, "buffer": "slots" if candidate else "source"})
        self.host.arena_base = reply["arena"] if isinstance(reply.get("arena"), int) else 0

    def layout(self) -> list[tuple[torch.dtype, list[int], list[int]]]:
        """dtype, shape and strides of the outputs of a call, as the process describes those of its last batch."""
        outputs = self.ask({"do": "outputs", "what": self.what}).get("outputs")
        if not isinstance(outputs, list) or not outputs:
            raise self.failure("error", "the process gave no account of its outputs.")
        if self.candidate:
            self.candidate.check_form(outputs[0])
        return [(dtype, shape, strides) for dtype, shape, strides, _ in self._layout_of(outputs[0])]

    def _layout_of(self, said: Any) -> list[tuple[torch.dtype, list[int], list[int], int]]:
        """One output's tensors: dtype and shape as they must be, strides and address as the process says."""
        found = []
        try:
            for (dtype, shape), told in zip(self.reference.output_specs, said["tensors"], strict=True):
                strides = [int(s) for s in told[2]]
                if len(strides) != len(shape):
                    raise ValueError("strides")
                kind = getattr(torch, dtype)
                if _extent(shape, strides) >= 1 << 47:
                    raise ValueError("no memory is so wide")
                if self.candidate and not self.host.gpu and _is_wide(kind, shape, strides):
                    rows = math.prod(shape) // _rows(shape, strides)[1]
                    if rows > MOST_ROWS:
                        text = f"an output's strides {strides} scatter its {rows} pieces over far more room than theirs"
                        raise self.failure("error", f"{text}; return a tensor that lies closer together.")
                found.append((kind, list(shape), strides, int(told[4])))
        except (TypeError, ValueError, KeyError, IndexError):
            raise self.failure("error", "the account of the outputs is garbled.") from None
        return found

    def addresses(self, position: int) -> list[int]:
        """Where the outputs of the call at this position of the last batch lie, by the lent table."""
        width = len(self.reference.output_specs)
        table = self.host.buffers["table"].tensor(0)
        return [int(table[position * width + i]) for i in range(width)]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Asks the process while it is timed."""
        return self.host.ask("timing", message, self.timeout_s if self.candidate else None)

    def give(self, sets: range) -> None:
        """Copies inputs to where a candidate sees them, and writes a baseline's again; the process stands still."""
        self.host.child.stop()
        if self.candidate:
            self.candidate.give_inputs(sets)
        elif not self.host.gpu:
            self.reference.write_again(sets)

    def suspect(self, what: str, seen: bool, evidence: str) -> None:
        """Notes a sign of foul play."""
        if seen:
            self.foul = True
            self.suspicions.setdefault(what, []).append(evidence)

    def judge(self) -> None:
        """CandidateFailed where most batches (and three at least) showed signs of foul play. Fewer may be chance, and
        none of them has counted."""
        if self.fouls < 3 or self.fouls <= self.batches / 2:
            return
        what, seen = max(self.suspicions.items(), key=lambda item: len(item[1]))
        text = f"{what}: seen in {len(seen)} of {self.batches} timed batches. The last of them: {seen[-1]}."
        raise CandidateFailed("rule", text, stage=what)

    def timed(self, order: list[int]) -> float:
        """Seconds by the supervisor's clock, from letting the process go on with these calls until it says done."""
        child = self.host.child
        child.stop()
        with self.failures():
            child.post({"do": "batch", "what": self.what, "order": order})
            started = child.go_on(spread=bool(order) and not self.host.gpu)
            reply = child.answer(self.timeout_s)
            ended = time.perf_counter()
        still = child.stop() - ended
        self.memory = reply
        self.suspect(WOKEN, child.woken, "its threads ran")
        # What it does after its answer and before it stands still is a part of the batch.
        return ended - started + max(still - STILL_S, 0.0)

    def failures(self) -> _Failures:
        return _Failures(self)

    def failure(self, kind: str, reason: str, error: ChildError | None = None) -> Exception:
        """CandidateFailed for a candidate; a failure of ours for a baseline."""
        if self.candidate:
            return CandidateFailed(kind, reason, error=error, stage="timing")
        return EvaluatorError(f"the baseline {self.what} cannot be timed: {reason}")

    def look_aside(self) -> None:
        """Measures what does not count: calls on one and the same input, and single calls from launch to result."""
        for _ in range(ASIDE):
            self.warm_us.append(max(self._same_input(), 1e-9) * 1e6)
            self.single_us.append(max(self.timed([0]), 1e-9) * 1e6)
        self.host.child.stop()

    def _same_input(self) -> float:
        """Seconds a call of a batch that is called on its first input set again and again."""
        return (self.timed([0] * self.calls) - self.constant_s) / self.calls

    def aids(self) -> dict[str, Interval]:
        """Times in microseconds a call that do not count, each with its spread."""
        found = {
            "events_us": self.event_us,
            "enqueue_us": self.host_us,
            "warm_us": self.warm_us,
            "end_to_end_us": self.single_us,
        }
        spreads = {name: timing.median_interval(values) for name, values in found.items() if values}
        return {name: Interval(value=v, low=low, high=high) for name, (v, low, high) in spreads.items()}


class _Failures:
    """Turns what a child does wrong outside of `Host.ask` into the bench's failure."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        bench = self.bench
        if isinstance(error, ChildError):
            raise bench.failure("error", f"{error.type}: {error.message}"[:2000], error) from None
        if isinstance(error, ChildTimeout):
            raise bench.failure("timeout", f"timing took longer than {bench.timeout_s:g} s.") from None
        if isinstance(error, ChildDied):
            raise bench.failure("error", f"the process {error.how} during timing.") from None


class StoppedBench(Bench):
    """CPU: the supervisor's clock from letting the stopped process go on until it answers and is stopped again."""

    kind = "cpu"
    clock = "supervisor's clock, the process stopped before and after, fresh inputs for every call"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shapes: list[tuple[torch.dtype, list[int], list[int]]] = []
        self.cpu_s: list[float] = []
        """Processor seconds of a call, all threads together."""

    def choose_calls(self) -> None:
        """Also learns shape and strides of the outputs, which are then only read by address."""
        super().choose_calls()
        # The trials so far were of few calls and may be far off. Whole batches tell, so all sides' last alike.
        trials = 3 if self.calls > FEWEST_CALLS else 1  # fewer where a call is long
        wanted = round(BATCH_S[self.kind] / max(min(self._trial() for _ in range(trials)), 1e-6))
        self.calls = min(self.calls, max(wanted, FEWEST_CALLS))
        self.shapes = self.layout()

    def forget(self) -> None:
        """Processor time, too."""
        super().forget()
        self.cpu_s.clear()

    def _trial(self) -> float:
        return (self.timed(list(range(self.calls))) - self.constant_s) / self.calls

    def _measure(self, order: list[int], picks: set[int]) -> float:
        total = 0.0
        for attempt in range(TRIES):
            self.give(range(max(order) + 1))
            before, cpu_s = self.host.child.preemptions(), frozen.cpu_seconds(self.host.child.pid)
            total = self.timed(order)
            if self.host.child.preemptions() - before <= 1 or attempt == TRIES - 1:
                break
            self.dropped += 1
            if self.candidate:
                self.reference.fill(max(order) + 1)  # what it has seen it might remember
        self.cpu_s.append((frozen.cpu_seconds(self.host.child.pid) - cpu_s) / len(order))
        self.read = {index: self._read(i) for i, index in enumerate(order) if index in picks}
        return (total - self.constant_s) / len(order)

    def _read(self, position: int) -> Tensors:
        """Outputs of one call out of the stopped process, at the addresses that it wrote down."""
        tensors, pid = [], self.host.child.pid
        for address, (dtype, shape, strides) in zip(self.addresses(position), self.shapes, strict=True):
            try:
                if _is_wide(dtype, shape, strides):
                    tensors.append(_read_rows(pid, address, dtype, shape, strides))
                    continue
                raw = torch.empty(_extent(shape, strides), dtype=dtype)
                frozen.read(pid, address, raw)
            except OSError as error:
                raise self.failure("error", f"an output of a timed call cannot be read: {error}") from None
            found = raw.as_strided(shape, strides)
            # Held until the batch is compared: without what lies between, where that is most of it.
            tensors.append(found.contiguous() if raw.numel() > MOST_SPREAD * max(found.numel(), 1) else found)
        return tensors


TOO_LATE = "work after the done flag"
CHANGED = "outputs changed after the done flag"
CLOCKS_DISAGREE = "its own clock disagrees"


class GateBench(Bench):
    """GPU: the time between opening the gate and the done flag, less the constant that an empty batch shows."""

    kind = "gate"
    clock = "gate outside the process, L2 flushed before the batch, fresh inputs for every call"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.late_s: list[float] = []
        """What a small kernel of the supervisor's took right after each batch."""
        self.usual_late_s = 400e-6
        """The same before there was a candidate."""

    def choose_calls(self) -> None:
        """Also finds out how many calls a stream's queue takes."""
        super().choose_calls()
        self._fit_queue()

    def grow(self) -> None:
        """As there; no more than can be queued."""
        super().grow()
        try:
            self._fit_queue()
        except MustWaitError:
            text = "a call waits for the GPU on the host now, and did not when its clock was chosen."
            raise self.failure("error", text) from None

    def _fit_queue(self) -> None:
        while not self.can_queue(self.calls):
            if self.calls == 1:
                raise MustWaitError
            self.calls = self.queue_calls = max(self.calls // 4, 1)

    def _trial(self) -> float:
        if not self.can_queue(self.calls):
            return BATCH_S["gate"] / self.calls
        ticket = self._queue(list(range(self.calls)))[0]
        seconds = self._through(ticket)
        self.ask({"do": "event_us", "what": self.what})
        return (seconds - self.constant_s) / self.calls

    def _measure(self, order: list[int], picks: set[int]) -> float:
        sets = range(max(order) + 1)
        ticket, reply = self._queue(order)
        self.host.child.stop()
        places = self._places(reply.get("outputs"), len(order))
        complete = self._give_cold(sets)
        snapshot = Snapshot(self, places, ticket) if self.candidate else None
        complete()  # the last thing before the gate
        net = max(self._through(ticket) - self.constant_s, 1e-9)
        late_s, stable = self._afterwards(ticket, snapshot)
        self.read = {index: [t.clone() for t in places[i]] for i, index in enumerate(order) if index in picks}
        event_s = self._event_s()
        if snapshot is not None:
            self._suspect_late_work(late_s, net)
            told = "the done flag was written again" if not stable else "pieces of them were not what lay there at done"
            self.suspect(CHANGED, snapshot.changed() or not stable, told)
            mine, outside = (seconds / len(order) * 1e6 for seconds in (event_s, net))
            told = f"events inside say {mine:.4g} us a call, the clock outside {outside:.4g} us"
            self.suspect(CLOCKS_DISAGREE, not abs(event_s - net) <= max(CLOCK_SHARE * net, CLOCK_S), told)
        else:
            self.late_s.append(late_s)
        self.event_us.append(event_s / len(order) * 1e6)
        self.host_us.append(_number(reply.get("host_us")) / len(order))
        return net / len(order)

    def _suspect_late_work(self, late_s: float, net_s: float) -> None:
        """Compares what the supervisor's own work took right after done was written with what it takes after a
        baseline's batch. `net_s`: what the batch took."""
        told = f"a small kernel of the supervisor's took {late_s * 1e6:.0f} us, usually {self.usual_late_s * 1e6:.0f}"
        self.suspect(TOO_LATE, late_s > self.usual_late_s * 1.25 + max(LATE_S, LATE_SHARE * net_s), told)

    def _same_input(self) -> float:
        ticket = self._queue([0] * self.calls)[0]
        seconds = self._through(ticket) - self.constant_s
        self._event_s()
        return seconds / self.calls

    def _event_s(self) -> float:
        return _number(self.ask({"do": "event_us", "what": self.what}).get("event_us")) * 1e-6

    def _queue(self, order: list[int]) -> tuple[int, dict[str, Any]]:
        ticket = self._next_ticket()
        self.memory = self.ask(self._message(order, ticket))
        return ticket, self.memory

    def _message(self, order: list[int], ticket: int) -> dict[str, Any]:
        return {"do": "queue", "what": self.what, "order": order, "ticket": ticket, "describe": True}

    def _next_ticket(self) -> int:
        assert self.host.page is not None
        self.host.page.ticket += 1
        return self.host.page.ticket

    def _through(self, ticket: int) -> float:
        """Opens the gate; seconds until done. Where done does not come, the process is asked what is the matter."""
        page = self.host.page
        assert page is not None
        seconds = gate.pass_through(page.words, ticket, min(self.timeout_s, 10.0))
        if seconds is None:
            started = time.monotonic()
            self.ask({"do": "event_us", "what": self.what})  # raises what has happened to the GPU
            if gate.watch(page.words, ticket, self.timeout_s) is None:
                raise self.failure("error", "the calls ended and the done flag behind them was not written.")
            seconds = 10.0 + time.monotonic() - started
        return seconds

    def _afterwards(self, ticket: int, snapshot: Snapshot | None) -> tuple[float, bool]:
        """Right after done: what a small kernel takes, which has to wait for whatever still runs on the GPU; and
        whether the done flag stayed as it was until the snapshot was taken."""
        page, stable = self.host.page, True
        assert page is not None
        started, late_s = time.perf_counter(), 0.0
        _flush_buffer(self.host.device)[:1024].zero_()
        mark = torch.cuda.Event()
        mark.record()
        while True:
            stable = stable and page.words[gate.DONE // 4] == ticket
            if not late_s and mark.query():
                late_s = time.perf_counter() - started
            if late_s and (snapshot is None or snapshot.stream.query()):
                return late_s, stable

    def can_queue(self, count: int) -> bool:
        """Whether so many calls can be queued behind a closed gate; opens it in any case."""
        child, page, ticket = self.host.child, self.host.page, self._next_ticket()
        assert page is not None
        child.go_on()
        with self.failures():
            child.post(self._message([i % self.arranged for i in range(count)], ticket))
            in_time = child.channel.readable(QUEUE_S)
            page.words[gate.OPEN // 4] = ticket
            child.answer(self.timeout_s)
        self.ask({"do": "event_us", "what": self.what})
        return in_time

    def _give_cold(self, sets: range) -> Callable[[], None]:
        """Gives the inputs and flushes the L2 cache; last of all come the pieces of the inputs that were held back.

        What waits for the inputs on the GPU can start while they are written, in the time slices of its own context.
        It works on wrong values then.
        """
        self.host.child.stop()
        put_right = self.candidate.give_in_part(sets) if self.candidate else None
        _flush_buffer(self.host.device).zero_()
        done = torch.cuda.Event()
        done.record()
        done.synchronize()

        def complete() -> None:
            if put_right:
                put_right()
                done.record()
                done.synchronize()  # not the device: the snapshot's stream waits for the candidate

        return complete

    def _places(self, outputs: Any, count: int) -> list[Tensors]:
        """Views of the arena at the outputs that the process says it will write."""
        places: list[Tensors] = []
        if not isinstance(outputs, list) or len(outputs) != count:
            raise self.failure("error", "the process gave no account of its outputs.")
        for said in outputs:
            if self.candidate:
                self.candidate.check_form(said)
            places.append([self._view(*tensor) for tensor in self._layout_of(said)])
        return places

    def _view(self, dtype: torch.dtype, shape: list[int], strides: list[int], address: int) -> torch.Tensor:
        arena = self.host.buffers["arena"].base
        if 0 in shape:
            return torch.empty(shape, dtype=dtype, device=arena.device)  # it lies nowhere
        start, size = address - self.host.arena_base, _extent(shape, strides) * dtype.itemsize
        if not 0 <= start <= start + size <= arena.numel() or start % dtype.itemsize:
            text = f"an output of a timed call lies outside the {arena.numel() >> 20} MiB that were lent for it"
            taken, more = (_number(self.memory.get(name)) / 2**20 for name in ("used", "outside"))
            text += f"; of those {taken:.0f} MiB are taken, and {more:.0f} more elsewhere"
            raise self.failure("error", f"{text}. Does it keep what it computed in earlier calls?")
        return arena[start : start + size].view(dtype).as_strided(shape, strides)


class HostBench(GateBench):
    """GPU, where a call waits for the GPU on the host and so cannot be queued behind a gate.

    The supervisor's clock around N and around 2N calls, less the constant of an empty batch. What counts is the largest
    of the three numbers that follow, so that drawing out one of them gains nothing.
    """

    kind = "host"
    clock = "supervisor's clock around N and 2N calls (a call waits on the host), fresh inputs for every call"
    sets_per_call = 3

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shapes: list[tuple[torch.dtype, list[int], list[int]]] = []
        self.constant_s = 0.0
        self.peer: HostBench | None = None
        """Eager's, beside a candidate's."""

    def choose_calls(self) -> None:
        """As on the CPU: learns the outputs' layout, too."""
        Bench.choose_calls(self)
        self.timed(list(range(self.calls)))
        self.shapes = self.layout()

    def grow(self) -> None:
        """As on the CPU: nothing is queued."""
        Bench.grow(self)

    def _same_input(self) -> float:
        return (self.timed([0] * self.calls) - self.constant_s) / self.calls

    def _trial(self) -> float:
        return self.timed([i % self.arranged for i in range(self.calls)]) / self.calls

    def _measure(self, order: list[int], picks: set[int]) -> float:
        n, seconds, lates = self.calls, [], []
        self.read = {}
        for sets in (range(n), range(n, 3 * n)):
            self._give_cold(sets)()
            seconds.append(self.timed(list(sets)))
            lates.append(_small_kernel(self.host.device))
            for i, index in enumerate(sets):
                if index in picks:
                    found = zip(self.shapes, self.addresses(i), strict=True)
                    self.read[index] = [self._view(d, shape, strides, at).clone() for (d, shape, strides), at in found]
        once, twice = seconds
        if self.candidate:
            if self.peer is not None and self.peer.late_s:
                # A GPU that was waited for on the host is in another state than one behind a gate: as after eager.
                self.usual_late_s = max(self.usual_late_s, statistics.median(self.peer.late_s))
            later = max(zip(lates, seconds, strict=True), key=lambda pair: pair[0] - LATE_SHARE * pair[1])
            self._suspect_late_work(*later)
        else:
            self.late_s += lates
        return max((twice - once) / n, (once - self.constant_s) / n, (twice - self.constant_s) / (2 * n))


class MustWaitError(Exception):
    """A call waits for the GPU on the host: it cannot be queued behind a gate."""


def make(
    host: Host,
    what: str,
    reference: ReferenceHost,
    constant_s: float,
    timeout_s: float,
    *,
    waits: bool = False,
    known: Bench | None = None,
) -> Bench:
    """A bench, warmed up and sized, with the clock that fits; `waits`: the one for calls that wait on the host.

    `known`: a bench of a short while ago. One of the same thing in the same process behind the gate is as large.
    """
    arguments = (host, what, reference, constant_s, timeout_s)
    if known is not None and known.kind == "gate" and (known.host, known.what) == (host, what) and not waits:
        alike = GateBench(*arguments)
        alike.calls = known.calls
        return alike
    bench = StoppedBench(*arguments) if not host.gpu else HostBench(*arguments) if waits else GateBench(*arguments)
    few = min(2, reference.capacity)
    reference.fill(few)
    bench.give(range(few))
    bench.arrange(few, warm_s=0.1, held=1, fresh=True)
    try:
        if isinstance(bench, GateBench) and not waits and not bench.can_queue(1):
            raise MustWaitError
        bench.choose_calls()
    except MustWaitError:
        bench = HostBench(*arguments)
        bench.arrange(few, held=1)
        bench.choose_calls()
    host.child.stop()
    return bench


class Snapshot:
    """Pieces of the outputs that a copy engine fetches by itself as soon as the done flag is written.

    A copy engine works while another context computes, so what it fetches is what lay there at done, whatever the
    process goes on doing. The pieces are chosen secretly before the gate opens.
    """

    def __init__(self, bench: Bench, places: list[Tensors], ticket: int) -> None:
        host, rng = bench.host, random.SystemRandom()
        assert host.page is not None
        if host.page.registered is None:
            host.page.registered = gate.GatePage(host.page.fd)
        self.stream, self.pinned = _copies(host.device)
        self.pieces: list[torch.Tensor] = []
        host.page.registered.wait(self.stream.cuda_stream, gate.DONE, ticket)
        with torch.cuda.stream(self.stream):
            for k in range(PIECES):
                piece = _piece_of(rng.choice(rng.choice(places)), rng)
                self.pinned[k, : piece.numel()].copy_(piece, non_blocking=True)
                self.pieces.append(piece)

    def changed(self) -> bool:
        """Whether what lies there now is not what lay there at done."""
        self.stream.synchronize()
        return any(not torch.equal(piece.cpu(), self.pinned[k, : piece.numel()]) for k, piece in enumerate(self.pieces))


def _piece_of(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """PIECE bytes from one of its elements on, or its last ones: not of what lies between them, which is nobody's."""
    raw = _bytes_of(tensor)
    if not raw.numel():
        return raw
    start = sum(rng.randrange(n) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    at = min(start * tensor.element_size(), max(raw.numel() - PIECE, 0))
    return raw[at : at + PIECE]


def _number(value: Any) -> float:
    """What a process says is a number; NaN where it is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def _extent(shape: Any, strides: Any) -> int:
    """Elements between the first and the last of a strided tensor. ValueError for negative strides."""
    if any(s < 0 for s in strides):
        raise ValueError("a stride is negative")
    return 0 if 0 in tuple(shape) else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def _is_wide(dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether far more lies between the elements of a tensor than they take."""
    return _extent(shape, strides) * dtype.itemsize > max(MOST_SPREAD * math.prod(shape) * dtype.itemsize, MOST_EXTENT)


def _rows(shape: Sequence[int], strides: Sequence[int]) -> tuple[list[int], int, int]:
    """Dimensions from the widest stride to the narrowest; elements of a row, which lie side by side; and how many of
    the dimensions, the last ones, make up a row."""
    order = sorted(range(len(shape)), key=lambda dim: -strides[dim])
    row, inner = 1, 0
    for dim in reversed(order):
        if shape[dim] != 1 and strides[dim] != row:
            break
        row, inner = row * shape[dim], inner + 1
    return order, row, inner


def _read_rows(pid: int, address: int, dtype: torch.dtype, shape: list[int], strides: list[int]) -> torch.Tensor:
    """A tensor out of a stopped process without what lies between its rows. OSError where it cannot be read."""
    order, row, inner = _rows(shape, strides)
    outer = order[: len(order) - inner]
    packed = torch.empty([shape[dim] for dim in order], dtype=dtype)
    into = packed.view(-1, row)
    for i, at in enumerate(itertools.product(*(range(shape[dim]) for dim in outer))):
        start = sum(n * strides[dim] for n, dim in zip(at, outer, strict=True))
        frozen.read(pid, address + start * dtype.itemsize, into[i])
    return packed.permute([order.index(dim) for dim in range(len(order))])


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_strided((_extent(tensor.shape, tensor.stride()),), (1,)).view(torch.uint8)


def _small_kernel(device: str) -> float:
    """Seconds that a small kernel of the supervisor's takes: longer when the GPU is still busy for somebody else."""
    started = time.perf_counter()
    _flush_buffer(device)[:1024].zero_()
    done = torch.cuda.Event()
    done.record()
    done.synchronize()
    return time.perf_counter() - started


_OURS: dict[tuple[str, str], Any] = {}
"""The supervisor's own memory on each device: what flushes the L2 cache, and where snapshots land."""


def _flush_buffer(device: str) -> torch.Tensor:
    if ("flush", device) not in _OURS:
        size = max(2 * torch.cuda.get_device_properties(device).L2_cache_size, 1 << 26)
        _OURS["flush", device] = torch.empty(size, dtype=torch.uint8, device=device)
    found: torch.Tensor = _OURS["flush", device]
    return found


def _copies(device: str) -> tuple[torch.cuda.Stream, torch.Tensor]:
    if ("copies", device) not in _OURS:
        pinned = torch.empty(PIECES, PIECE, dtype=torch.uint8, pin_memory=True)
        _OURS["copies", device] = (torch.cuda.Stream(device), pinned)
    found: tuple[torch.cuda.Stream, torch.Tensor] = _OURS["copies", device]
    return found


def _nothing_s(bench: Bench) -> float:
    """No calls, as before a batch: what finds its caches warm answers twice as soon."""
    bench.reference.fill(min(bench.reference.capacity, CONSTANT_SETS))
    return bench.timed([])


def clock_constant(reference: ReferenceHost, timeout_s: float = 120.0) -> float:
    """Seconds that the clock shows for no work: measured where baselines are timed, never in a candidate's process."""
    arguments = (reference.timed, "nothing", reference, 0.0, timeout_s)
    if not reference.gpu:
        bench: Bench = StoppedBench(*arguments)
        bench.arrange(0, held=0, fresh=True)
        return statistics.median(_nothing_s(bench) for _ in range(9))
    gated = GateBench(*arguments)
    gated.arrange(0, held=0, fresh=True)
    calls = 101
    times: dict[int, list[float]] = {1: [], calls: []}
    for _ in range(9):
        for count, found in times.items():
            ticket = gated._next_ticket()
            gated.ask({"do": "queue", "what": "nothing", "order": [0] * count, "ticket": ticket})
            _flush_buffer(reference.device).zero_()  # so that the GPU changes contexts at the gate, as it will
            torch.cuda.synchronize()
            found.append(gated._through(ticket))
    one = statistics.median(times[1])
    return one - (statistics.median(times[calls]) - one) / (calls - 1)
