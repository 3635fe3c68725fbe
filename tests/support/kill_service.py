"""Fifty queued runs, while service and workers are killed with SIGKILL, again and again, and started anew.

As a program it does so with a real evaluator: `python -m support.kill_service HOME --evaluator local:cpu --runs 50`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from support.service import Service, until

from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import RunFinished, RunState

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE = "row_softmax"


def new_run(number: int, rounds: int) -> dict[str, Any]:
    """A C++ run with recorded replies; each has another task, so that nothing is shared between them."""
    source = (EXAMPLES / "tasks" / f"{EXAMPLE}.py").read_text()
    return {
        "task": {"name": f"softmax-{number}", "source": f"# {number}\n{source}"},
        "language": "cpp",
        "coder": f"recorded:{EXAMPLE}-cpp",
        "budget": {"rounds": rounds},
        "options": {"trials": 1, "time_budget_s": 0.02, "compile_baseline": False},
    }


def torment(home: Path, options: tuple[str, ...], runs: int, rounds: int, kills: int, seconds: float) -> dict[str, Any]:
    """Submits `runs` runs, kills at random until `kills` have been done, waits for all to end; what became of them.

    Every second kill takes the service, the others one of its workers.
    """
    chance = random.Random(7)
    service = Service(home, "--workers", "2", "--slots", "3", *options, log=home.parent / "service.log")
    began = time.monotonic()
    submitted = []
    for number in range(runs):
        answer = service.client.post("/runs", json=new_run(number, rounds), headers={"Idempotency-Key": str(number)})
        assert answer.status_code == 201, answer.text
        submitted.append(answer.json()["id"])
    store = SqliteStore(home)
    killed: Counter[str] = Counter()
    try:
        while sum(killed.values()) < kills:
            time.sleep(chance.uniform(0.3, 1.5))
            if sum(killed.values()) % 2:
                service.end(signal.SIGKILL)
                killed["service"] += 1
                service.start()
            elif workers := store.queue.workers():
                victim = chance.choice(workers)
                try:
                    signal.pidfd_send_signal(_pidfd(victim.pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed["worker"] += 1
        # What was submitted before is not submitted again by a client that did not see its answer.
        again = service.client.post("/runs", json=new_run(0, rounds), headers={"Idempotency-Key": "0"})
        assert again.json()["id"] == submitted[0] and again.headers["idempotency-replayed"] == "true"
        until(lambda: all(run.state is RunState.DONE for run in store.runs(1000)), seconds, 0.5)
        return {"seconds": time.monotonic() - began, "killed": dict(killed), **outcome(store, submitted)}
    finally:
        service.end()
        store.close()


def outcome(store: SqliteStore, submitted: list[str]) -> dict[str, Any]:
    """States, ends and repeated work over all runs."""
    runs = {run.id: run for run in store.runs(10_000)}
    ends: Counter[int] = Counter()
    deliveries, asked_twice, rounds = 0, 0, 0
    for run_id in runs:
        events = [stored.event for stored in store.events(run_id, limit=10_000)]
        ends[sum(isinstance(event, RunFinished) and event.state is RunState.DONE for event in events)] += 1
        deliveries += sum(event.type in ("run_started", "run_resumed") for event in events)
        places = [(call.attempt_id, call.role, call.purpose) for call in store.calls(run_id) if call.reply is not None]
        asked_twice += len(places) - len(set(places))
        rounds += len(store.attempts(run_id))
    return {
        "lost": sorted(set(submitted) - set(runs)),
        "states": dict(Counter(run.state.value for run in runs.values())),
        "ends": dict(ends),
        "rounds": rounds,
        "deliveries": deliveries,
        "replies_asked_twice": asked_twice,
    }


def _pidfd(pid: int) -> int:
    import os

    return os.pidfd_open(pid)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--evaluator", default="local:cpu")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    options = ("--evaluator", given.evaluator)
    found = torment(given.home, options, given.runs, given.rounds, given.kills, given.seconds)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
