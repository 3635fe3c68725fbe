"""`cudaforge serve` as a process, on a free port of loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2


class Service:
    """A running service; `client` speaks to it."""

    def __init__(self, home: Path, *options: str, log: Path) -> None:
        self.home, self.options, self.log = home, options, log
        self.process: subprocess.Popen[bytes]
        self.client: httpx2.Client
        self.start()

    def start(self) -> None:
        """Starts it, again after it was ended."""
        command = [sys.executable, "-m", "cudaforge", "serve", "--json", "--port", "0", "--home", str(self.home)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        shown = b""
        while not shown.rstrip().endswith(b"}"):
            line = self.process.stdout.readline()
            assert line, f"the service did not start: {self.log.read_text()}"
            shown += line
        self.url = str(json.loads(shown)["url"])
        self.client = httpx2.Client(base_url=self.url, timeout=20)
        until(lambda: self.client.get("/health").status_code == 200)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; the exit code."""
        self.client.close()
        self.process.send_signal(number)
        try:
            code = self.process.wait(60)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def service(home: Path, *options: str) -> Iterator[Service]:
    """A service for a while."""
    running = Service(home, *options, log=home.parent / "service.log")
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end()


def until(condition: Callable[[], bool], seconds: float = 60.0, pause: float = 0.05) -> None:
    """Waits for a condition; an AssertionError where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that is to find this Python's commands."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **more}
