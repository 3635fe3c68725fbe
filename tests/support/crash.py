"""A scripted run that kills itself with SIGKILL at a chosen point, and is driven on by fresh processes.

A point is the moment before or after anything durable: a write to the store, a reply, a measurement. Points are
found by walking through one whole run, so new ones are covered by themselves; of several with the same bytes on disk
(the write before, the checkpoint) only the first counts. Every process is forked from one that has imported
everything and
driven one run, so that none compiles statements and templates anew.

Run as a program it prints JSON, a value a line: `crash.py points FOLDER` the points, `crash.py kill FOLDER POINT...`
what became of a run killed there, `crash.py random FOLDER SECONDS...` of one killed after that time, `crash.py often
FOLDER POINT` of one of which every process is killed there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import langgraph.checkpoint.sqlite.aio
import langgraph.graph
from support.scripted import (
    UNREADABLE,
    ScriptedEvaluator,
    ScriptedModel,
    diagnosis_reply,
    kernel_reply,
    plan_reply,
    scripted_run,
    scripted_spec,
)

from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import EvaluateRequest, Evaluation
from cudaforge.graph import Context, drive
from cudaforge.ports import ChatReply, ChatRequest, Store
from cudaforge.search.chain import ChainPolicy
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import CallState, Note

WARM = (aiosqlite, langgraph.checkpoint.sqlite.aio, langgraph.graph)
"""Imported here so that no forked process has to."""

RUN = "r000000000a"
ROUNDS = 4
CODER = [  # a failure; a repair; a revision asked for twice, whose gain does not hold up; the same kernel again
    kernel_reply("BUILD_FAILED"),
    kernel_reply("time_us=80"),
    UNREADABLE,
    kernel_reply("time_us=40 unstable"),
    kernel_reply("time_us=40 unstable"),
]
JUDGE = [diagnosis_reply(), UNREADABLE, plan_reply(), UNREADABLE, UNREADABLE]

Point = Callable[[str], None]


class WatchedStore:
    """A store whose writes are points."""

    def __init__(self, store: Store, point: Point) -> None:
        self._store = store
        self._point = point

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not name.startswith(("save_", "append")):
            return method

        def watched(*arguments: Any) -> Any:
            self._point(f"before {name}")
            result = method(*arguments)
            self._point(f"after {name}")
            return result

        return watched


class WatchedModel(ScriptedModel):
    """A model whose replies are points."""

    def __init__(self, name: str, replies: list[str], log: Path, point: Point) -> None:
        super().__init__(name, replies, log=log)
        self._point = point

    async def complete(self, request: ChatRequest) -> ChatReply:
        self._point("before complete")
        reply = await super().complete(request)
        self._point("after complete")
        return reply


class WatchedEvaluator(ScriptedEvaluator):
    """An evaluator whose measurements are points; one measurement needs a second try."""

    def __init__(self, log: Path, point: Point) -> None:
        super().__init__(log=log)
        self._point = point

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in ("baseline", "evaluate", "profile", "verify"):
            return method

        async def watched(request: Any) -> Any:
            self._point(f"before {name}")
            result = await method(request)
            self._point(f"after {name}")
            return result

        return watched

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        if request.key == f"{RUN}.1/evaluate/0":
            raise EvaluatorError("The machine stumbled.")
        return await super().evaluate(request)


def drive_here(home: Path, point: Point) -> None:
    """Drives the run in this process, from wherever it stands. Making the run is not part of driving it."""
    store = SqliteStore(home)
    if store.run(RUN) is None:
        scripted_run(store, scripted_spec(rounds=ROUNDS), RUN)
    log = home / "work.log"
    watched = WatchedStore(store, point)
    context = Context(
        store=watched,  # type: ignore[arg-type]
        coder=WatchedModel("scripted:coder", CODER, log, point),
        judge=WatchedModel("scripted:judge", JUDGE, log, point),
        evaluator=WatchedEvaluator(log, point),
        policy=ChainPolicy(),
    )
    asyncio.run(drive(RUN, context, home / "checkpoints.db"))
    store.close()


def in_a_process(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Runs `work` in a forked process and returns whether it ended by itself; SIGKILL is the other way."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status != 0:
        raise RuntimeError(f"a driver failed: {status}")
    return True


def at(number: int) -> Point:
    """Kills this process at its `number`-th point, counted from 0."""
    count = 0

    def point(_: str) -> None:
        nonlocal count
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    return point


def find_points(home: Path) -> list[tuple[int, str]]:
    """Walks through a whole run; the points that differ in what is on disk, with their numbers and names."""
    found: list[tuple[int, str]] = []
    count, before = 0, -1

    def point(name: str) -> None:
        nonlocal count, before
        on_disk = sum(path.stat().st_size for path in home.glob("checkpoints.db*"))
        if name.startswith("after") or on_disk != before:
            found.append((count, name))
        count, before = count + 1, on_disk

    drive_here(home, point)
    return found


def stored(home: Path) -> dict[str, Any]:
    """What the store holds that must not be asked or measured again, and what is in flight."""
    store = SqliteStore(home)
    calls = store.calls(RUN)
    state = {
        "replies": [f"{c.role.value} {c.position}" for c in calls if c.reply is not None],
        "results": list(store.results(RUN)),
        "in_flight": [c.key for c in calls if c.state is CallState.STARTED],
        "uncertain": [c.key for c in calls if c.state is CallState.UNCERTAIN],
    }
    store.close()
    return state


def trace(home: Path) -> dict[str, Any]:
    """The finished run without what a kill may change: times, and the record of calls cut off in flight."""
    store = SqliteStore(home)
    run = store.run(RUN)
    assert run is not None
    calls = []
    for call in store.calls(RUN):
        if call.state is not CallState.UNCERTAIN:
            prompt = hashlib.sha256("\0".join(m.content for m in call.messages).encode()).hexdigest()
            calls.append({**call.model_dump(mode="json", exclude={"started", "messages", "key"}), "prompt": prompt})
    events = []
    for entry in store.events(RUN):
        cut_off = isinstance(entry.event, Note) and "cut off in flight" in entry.event.message
        if entry.event.type != "run_resumed" and not cut_off:
            events.append(entry.event.model_dump(mode="json", exclude={"seconds", "usage"}))
    finished = {
        "run": run.model_dump(mode="json", exclude={"created", "updated"}),
        "attempts": [a.model_dump(mode="json", exclude={"started", "finished"}) for a in store.attempts(RUN)],
        "calls": calls,
        "results": {key: result.model_dump(mode="json") for key, result in store.results(RUN).items()},
        "events": events,
    }
    store.close()
    return finished


def answer_of(folder: Path, question: Callable[[], Any]) -> Any:
    """What a forked process finds out: this one opens no store, so that it forks from a clean state."""
    answer = folder / "answer.json"

    def ask() -> None:
        answer.write_text(json.dumps(question()))

    in_a_process(ask)
    return json.loads(answer.read_text())


def killed_once(home: Path, number: int | None = None, after_s: float | None = None) -> dict[str, Any]:
    """A run killed at a point or after some seconds, and driven on by a second process.

    `then` is what was stored at the kill, `now` what is at the end, `done_after` the work that the second did.
    """
    home.mkdir()
    point = (lambda _: None) if number is None else at(number)
    ended = in_a_process(lambda: drive_here(home, point), after_s)
    log = home / "work.log"
    done_before = log.read_text().splitlines() if log.exists() else []

    def drive_on() -> dict[str, Any]:
        then = stored(home)
        drive_here(home, lambda _: None)
        return {"then": then, "now": stored(home), "trace": trace(home)}

    found: dict[str, Any] = answer_of(home, drive_on)
    return {"killed": not ended, "done_after": log.read_text().splitlines()[len(done_before) :], **found}


def main(command: str, folder: Path, *values: str) -> None:
    with tempfile.TemporaryDirectory(
        dir=folder
    ) as warm:  # what is compiled on first use is compiled once, not per fork
        drive_here(Path(warm), lambda _: None)
    if command == "points":
        print(json.dumps(answer_of(folder, lambda: {"points": find_points(folder), "trace": trace(folder)})))
    elif command == "kill":
        for value in values:
            print(json.dumps({"at": value, **killed_once(folder / value, number=int(value))}))
    elif command == "random":
        for value in values:
            print(json.dumps({"at": value, **killed_once(folder / value, after_s=float(value))}))
    elif command == "often":
        kills = 0
        while kills < 100 and not in_a_process(lambda: drive_here(folder, at(int(values[0])))):
            kills += 1
        print(json.dumps({"kills": kills, "trace": answer_of(folder, lambda: trace(folder))}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
