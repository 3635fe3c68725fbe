"""A process that writes to a home until it is done or killed: `python -m support.store_writer HOME RUN COUNT`.

Each turn stores an artefact, an answered call and an event that names the artefact, and then prints the event's id:
what is printed has been acknowledged by the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import records

from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Note


def write(home: Path, run_id: str, count: int) -> None:
    store = SqliteStore(home)
    if store.run(run_id) is None:
        store.create_run(records.run(run_id))
    for turn in range(count):
        digest = store.put_artifact(f"{run_id} {turn}".encode() * 100)
        store.save_call(records.answered(f"{run_id}.{turn}/coder/0", run_id=run_id))
        print(store.append(Note(run_id=run_id, message=digest)), flush=True)
    store.close()


@contextmanager
def writer(home: Path, run_id: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """The process; killed at the latest when the block is left."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "support.store_writer", str(home), run_id, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
