"""The service as its clients feel it: live events, lists of many runs, submissions, and the server's memory.

    python benchmarks/service.py --out benchmarks/results/NAME

A real server (`cudaforge serve --workers 0`, a process of its own, over loopback) has a home with 10,000 runs, each
with 3 rounds and 5 model calls. In this order:

- lists: GET /runs?limit=50 over one connection that is kept alive;
- events: 200 open event streams while a process appends 20 events a second of 1 KiB each, over five runs. A delivery
  takes from just before the append began until the reader has the whole event, by the same clock;
- submissions: POST /runs, each with a task that nobody has sent before, as fast as one and as 8 clients go.

All of it shares this machine's cores, load generators included: their shares are told. `--quick` is a smoke test.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import http.client
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness  # finds our packages beside this folder

sys.path.insert(0, str(harness.ROOT / "tests"))

from sqlalchemy import Table, insert
from support import records

from cudaforge.store.models import ATTEMPTS, CALLS, JOBS, RUNS
from cudaforge.store.rows import attempt_values, call_values, run_values
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Message, Note, RunState
from cudaforge_api.shapes import EXAMPLE_SOURCE
from cudaforge_profiling.devices import cpu_device

GOALS = {"events": 200.0, "lists": 50.0}
"""Milliseconds that 95 of 100 deliveries, and plain lists, have to stay below."""
ROUNDS, ASKED, WATCHED = 3, 5, 5
"""Rounds and model calls of each run; and how many runs the events belong to."""
STATES = (RunState.DONE,) * 7 + (RunState.STOPPED, RunState.FAILED, RunState.SUSPENDED)
MARK, EVENT_BYTES, PATIENCE_S = b'"message":"sent ', 1024, 10.0
SEED = 20261126
DISTRIBUTIONS = ("cudaforge", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "sqlalchemy")
FULL = {"runs": 10_000, "streams": 200, "rate": 20, "seconds": 30, "requests": 500, "submit_s": 10}
QUICK = {"runs": 500, "streams": 20, "rate": 20, "seconds": 2, "requests": 30, "submit_s": 1}

# -- the home and the server ---------------------------------------------------------------------------------------


def run_id(number: int) -> str:
    """Of the run that was made as the number'th."""
    return f"r{number:010d}"


def fill(home: Path, runs: int) -> None:
    """Makes the home. The first WATCHED runs are under way, the others have come to rest."""
    store = SqliteStore(home)
    prompt = "A prompt and its reply in some 4 KiB. " * 100
    attempts = [attempt_values(records.attempt("RUN", n)) for n in range(ROUNDS)]
    asked = {"messages": (Message(role="user", content=prompt),), "run_id": "RUN"}
    calls = [call_values(records.answered(f"RUN.{n % ROUNDS}/coder/{n}", second=n, **asked)) for n in range(ASKED)]
    job = {"id": "RUN", "kind": "run", "submitter": "local", "state": "ended", "deliveries": 0, "cancel": False}
    templates = {ATTEMPTS: attempts, CALLS: calls, JOBS: [{**job, "served": ""}]}
    rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in (RUNS, *templates)}
    for number in range(runs):
        mine = run_id(number)
        state = RunState.RUNNING if number < WATCHED else STATES[number % len(STATES)]
        outcome = records.outcome(mine) if state is RunState.DONE else None
        made = records.run(mine, minute=number, name=f"task_{number % 20:02d}", state=state, outcome=outcome)
        rows[RUNS].append(run_values(made))
        for table, given in templates.items():
            rows[table] += [
                {k: v.replace("RUN", mine) if isinstance(v, str) else v for k, v in row.items()} for row in given
            ]
    with store._database.write() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
    store.close()


@dataclass
class Server:
    """A server that runs."""

    pid: int
    port: int
    started_s: float

    def cpu_s(self) -> float:
        """Processor time that it has had."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, field: str = "VmRSS") -> float:
        """Its resident memory; `VmHWM`: the most it ever was."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))

    def connect(self) -> http.client.HTTPConnection:
        """A client of its own, which is kept alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def ask(client: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> tuple[float, Any]:
    """Milliseconds until the whole answer is here, and the answer; whatever is no success raises."""
    headers = {"Content-Type": "application/json"} if body else {}
    began = time.perf_counter()
    client.request(method, f"/api/v1{path}", body, headers)
    answer = client.getresponse()
    text = answer.read()
    took = 1000 * (time.perf_counter() - began)
    if answer.status not in (200, 201):
        raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
    return took, json.loads(text)


@contextlib.contextmanager
def serving(home: Path, log: Path, found: dict[str, Any]) -> Iterator[Server]:
    """The server until it is left; what it said and how it ended go into `found`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cudaforge", "serve", "--workers", "0", "--port", str(port), "--home", str(home)]
    command += ["--evaluator", "local:cpu", "--max-queued", "1000000", "--max-active", "1000000"]
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    server = Server(process.pid, port, 0.0)
    try:
        while not server.started_s:
            if process.poll() is not None or time.monotonic() - began > 60:
                raise RuntimeError(f"The server did not start: {log.read_text()}")
            with contextlib.suppress(ConnectionRefusedError):
                ask(server.connect(), "GET", "/health")
                server.started_s = time.monotonic() - began
            time.sleep(0.02)
        yield server
        stopping = time.monotonic()
        process.send_signal(signal.SIGTERM)
        found["exit"] = {"code": process.wait(30), "seconds": time.monotonic() - stopping}
    finally:
        process.kill()
        process.wait()
        found["log"] = log.read_text().splitlines()[1:][-50:]  # the first line says where it listens


# -- events --------------------------------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """One open stream, read as cheaply as it can be."""

    def __init__(self) -> None:
        self.rest = b""
        self.open = self.lost = False
        self.got: list[tuple[int, float, float]] = []
        """Of each event: its number, when it was sent and when it was here."""

    def data_received(self, data: bytes) -> None:
        here = time.time()
        *whole, self.rest = (self.rest + data).split(b"\n\n")
        for part in whole:
            at = part.find(MARK)
            if at >= 0:
                sent, number = part[at + len(MARK) : at + len(MARK) + 60].split(b" ", 2)[:2]
                self.got.append((int(number), float(sent), here))
            elif part.startswith(b"HTTP/1.1 200") and b"retry:" in part:
                self.open = True

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True


def read(pipe: Connection, port: int, paths: list[str], expected: int) -> None:
    """A process: opens the streams, says so, and reads until all is there or the writer has long finished."""
    import uvloop

    async def reading() -> None:
        loop = asyncio.get_running_loop()
        both = [await loop.create_connection(Stream, "127.0.0.1", port) for _ in paths]
        streams = [stream for _, stream in both]
        for (transport, _), path in zip(both, paths, strict=True):
            transport.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(3 * PATIENCE_S):
            while not all(stream.open for stream in streams):
                await asyncio.sleep(0.02)
        pipe.send("open")
        cpu, until = 0.0, math.inf
        while time.monotonic() < until and sum(len(stream.got) for stream in streams) < expected:
            await asyncio.sleep(0.05)
            if pipe.poll():
                if pipe.recv() == "begins":
                    cpu = time.process_time()
                else:
                    until = time.monotonic() + PATIENCE_S
        pipe.send((time.process_time() - cpu, [(stream.got, stream.lost) for stream in streams]))

    uvloop.run(reading())


def append(pipe: Connection, home: Path, rate: float, count: int) -> None:
    """A process: appends the events at their times."""
    store, filler = SqliteStore(home), random.Random(SEED)
    pipe.send("open")
    pipe.recv()
    cpu, began, took = time.process_time(), time.monotonic(), []
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        text = filler.randbytes(EVENT_BYTES // 2).hex()
        sent = time.time()
        message = f"sent {sent:.6f} {number} {text}"[:EVENT_BYTES]
        store.append(Note(run_id=run_id(number % WATCHED), message=message))
        took.append(1000 * (time.time() - sent))
    pipe.send((took, time.process_time() - cpu, time.monotonic() - began))
    store.close()


def events(server: Server, home: Path, options: argparse.Namespace, single: int) -> dict[str, Any]:
    """All streams open, `single` of them on one run each and the others on all runs."""
    count = round(options.rate * options.seconds)
    with contextlib.closing(SqliteStore(home)) as store:
        newest = store.newest_event()
    runs = [None] * (options.streams - single) + [number % WATCHED for number in range(single)]
    paths = ["/stream" if run is None else f"/runs/{run_id(run)}/stream?after={newest}" for run in runs]
    wanted = [list(range(count)) if run is None else list(range(run, count, WATCHED)) for run in runs]
    expected = sum(map(len, wanted))
    processes = multiprocessing.get_context("spawn")
    (ours, theirs), (pen, paper) = processes.Pipe(), processes.Pipe()
    reader = processes.Process(target=read, args=(theirs, server.port, paths, expected), daemon=True)
    writer = processes.Process(target=append, args=(paper, home, options.rate, count), daemon=True)
    for process, inner in ((reader, theirs), (writer, paper)):
        process.start()
        inner.close()  # so that a process that fails is noticed here
    ours.recv()
    pen.recv()
    idle_s = min(5.0, options.seconds)
    cpu = server.cpu_s()
    time.sleep(idle_s)
    idle = (server.cpu_s() - cpu) / idle_s
    memory, cpu = server.mib(), server.cpu_s()
    ours.send("begins")
    pen.send("begin")
    took, writer_s, wall_s = pen.recv()
    cpu = (server.cpu_s() - cpu) / wall_s
    after = server.mib()
    ours.send("over")
    reader_s, streams = ours.recv()
    for process in (reader, writer):
        process.join()
    delays = [1000 * (here - sent) for got, _ in streams for _, sent, here in got]
    numbers = [[number for number, _, _ in got] for got, _ in streams]
    return {
        "streams": f"{options.streams - single} on all runs, {single} on one run each" if single else "all on all runs",
        "expected": expected,
        "delivered": sum(len(set(n) & set(w)) for n, w in zip(numbers, wanted, strict=True)),
        "twice": sum(len(n) - len(set(n)) for n in numbers),
        "out of order": sum(n != sorted(n) for n in numbers),
        "broken": sum(lost for _, lost in streams),
        "delivery": summed(delays),
        "append": summed(took),
        "rate": count / wall_s,
        "cpu": {"server": cpu, "server_idle": idle, "reader": reader_s / wall_s, "writer": writer_s / wall_s},
        "mib": {"before": memory, "after": after},
    }


# -- lists and submissions -----------------------------------------------------------------------------------------


def lists(server: Server, runs: int, requests: int) -> list[dict[str, Any]]:
    """Each kind of list so many times."""
    draw = random.Random(SEED)
    kinds = {
        "first page": "",
        "random later page": "&cursor={}",
        "state=failed, random page": "&state=failed&cursor={}",
        "text=, in 1 of 20 runs": "&text=task_07",
        "text=, in one run": f"&text={run_id(runs // 3)[-8:]}",
        "mine=true": "&mine=true",
    }
    client, found = server.connect(), []
    for name, query in kinds.items():
        paths = [f"/runs?limit=50{query.format(run_id(draw.randrange(50, runs)))}" for _ in range(requests)]
        cpu, began = server.cpu_s(), time.monotonic()
        answers = [ask(client, "GET", path) for path in paths]
        cpu_ms = 1000 * (server.cpu_s() - cpu) / requests
        items = [len(page["items"]) for _, page in answers]
        if name == "first page" and not all(item["spent"]["calls"] == ASKED for item in answers[0][1]["items"]):
            raise RuntimeError("The list does not show what the runs have spent.")
        measured = {"server_cpu_ms": cpu_ms, "a_second": requests / (time.monotonic() - began)}
        answer = summed([took for took, _ in answers])
        found.append({"list": name, "items": sum(items) / requests, "answer": answer, **measured})
    return found


def submissions(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """So many clients, each sending its next run when the last was answered."""
    took: list[float] = []
    failed: list[Exception] = []
    until = time.monotonic() + seconds

    def submit(client: int) -> None:
        connection, number = server.connect(), 0
        try:
            while time.monotonic() < until:
                source = f"{EXAMPLE_SOURCE}# {clients} clients, client {client}, run {number}\n"
                run = {"task": {"name": "relu_twice", "source": source}, "language": "cpp", "coder": "manual:"}
                took.append(ask(connection, "POST", "/runs", json.dumps(run))[0])
                number += 1
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=submit, args=(client,)) for client in range(clients)]
    cpu, own, began = server.cpu_s(), time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    wall_s = time.monotonic() - began
    shares = {"server": (server.cpu_s() - cpu) / wall_s, "clients": (time.process_time() - own) / wall_s}
    count = len(took)
    return {"clients": clients, "count": count, "a_second": count / wall_s, "answer": summed(took), "cpu": shares}


# -- all of it -----------------------------------------------------------------------------------------------------


def summed(values: list[float]) -> dict[str, Any]:
    """Milliseconds: percentiles, and how often each value came, to three digits."""
    ordered = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {name: ordered[math.ceil(share * len(ordered)) - 1] if ordered else None for name, share in shares.items()}
    return {**found, "counts": dict(collections.Counter(f"{value:.3g}" for value in ordered))}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything against one server."""
    home = folder / "home"
    versions = {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
    found: dict[str, Any] = {
        "command": harness.command(),
        "machine": {
            "device": {"name": cpu_device().name},
            "versions": {**versions, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
            "host": platform.platform(),
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
        },
        "settings": QUICK if options.quick else FULL,
    }
    began = time.monotonic()
    fill(home, options.runs)
    found["filled"] = {"seconds": time.monotonic() - began, "mib": (home / "cudaforge.db").stat().st_size / 2**20}
    with serving(home, folder / "log", found) as server:
        found["started_s"] = server.started_s
        memory = found["mib"] = {"start": server.mib()}
        found["lists"] = lists(server, options.runs, options.requests)
        memory["after lists"] = server.mib()
        found["events"] = [events(server, home, options, single) for single in (options.streams // 2, 0)]
        memory[f"{options.streams} streams open"] = max(level["mib"]["before"] for level in found["events"])
        memory["after events"] = max(level["mib"]["after"] for level in found["events"])
        found["submissions"] = [submissions(server, clients, options.submit_s) for clients in (1, 8)]
        memory["end"] = server.mib()
        memory["most"] = server.mib("VmHWM")
    with contextlib.closing(sqlite3.connect(home / "cudaforge.db")) as database:
        stored = database.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
    found["stored"] = {"submitted": sum(level["count"] for level in found["submissions"]), "stored": stored}
    found["machine"]["load"] = max(os.getloadavg()[0], found["machine"]["load_before"])
    return found


def write(found: dict[str, Any], folder: Path) -> str:
    """Writes service.json and service.md; returns the latter."""
    asked = found["settings"]
    times = ("p50", "p95", "p99", "max")
    in_ms = [f"{name}, ms" for name in times]
    odd = ("twice", "out of order", "broken")
    delivered = [
        (
            *(e["streams"], f"{e['delivered']} of {e['expected']}", *map(e.get, odd), *map(e["delivery"].get, times)),
            *(e["append"]["p95"], *_percent(e["cpu"])),
        )
        for e in found["events"]
    ]
    listed = [
        (e["list"], e["items"], *map(e["answer"].get, times), e["server_cpu_ms"], e["a_second"]) for e in found["lists"]
    ]
    sent = [
        (e["clients"], e["count"], e["a_second"], *map(e["answer"].get, times), *_percent(e["cpu"]))
        for e in found["submissions"]
    ]
    shares = ("server's CPU", "while nothing comes", "reader's CPU", "writer's CPU")
    worst = {
        "events": max(level["delivery"]["p95"] or math.inf for level in found["events"]),
        "lists": max(e["answer"]["p95"] for e in found["lists"][:2]),
    }
    goals = ", ".join(
        f"{what} {worst[what]:.1f} ms of {most:g} ({'met' if worst[what] < most else 'missed'})"
        for what, most in GOALS.items()
    )
    parts = [
        harness.described(found),
        f"Load average {found['machine']['load_before']:.1f} before. A home of {asked['runs']} runs with {ROUNDS} "
        f"rounds and {ASKED} calls each, {found['filled']['mib']:.0f} MiB. The server answered {found['started_s']:.1f}"
        f" s after its start and ended {found['exit']['seconds']:.1f} s after SIGTERM with {found['exit']['code']}. "
        f"p95 against its goal: {goals}. CPU: shares of one core.",
        f"Events: {asked['streams']} streams, {asked['rate']:g} events a second of {EVENT_BYTES} bytes over {WATCHED} "
        f"runs for {asked['seconds']:g} s. From before the append to the whole event at its reader:",
        harness.table(("streams", "delivered", *odd, *in_ms, "append p95, ms", *shares), delivered),
        f"GET /runs?limit=50 over one connection, {asked['requests']} of each kind:",
        harness.table(("list", "items", *in_ms, "server's CPU of one, ms", "a second"), listed),
        f"POST /runs, a new task each; {found['stored']['stored']} of {found['stored']['submitted']} answered with 201 "
        "are in the queue:",
        harness.table(("clients", "submitted", "a second", *in_ms, "server's CPU", "clients' CPU"), sent),
        "Resident memory of the server, MiB:",
        harness.table(found["mib"], [[f"{value:.0f}" for value in found["mib"].values()]]),
    ]
    if found["log"]:
        parts.append("The server said:\n\n```\n" + "\n".join(found["log"]) + "\n```")
    text = "\n\n".join(parts) + "\n"
    (folder / "service.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "service.md").write_text(text)
    return text


def _percent(shares: dict[str, float]) -> list[str]:
    return [f"{share:.0%}" for share in shares.values()]


def main() -> None:
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few of everything: a smoke test")
    options = parser.parse_args()
    vars(options).update(QUICK if options.quick else FULL)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="service-") as folder:
        found = measure(options, Path(folder))
    print("\n" + write(found, options.out))


if __name__ == "__main__":
    main()
