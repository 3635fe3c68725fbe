"""One process at a time checks, times or profiles on a device: an advisory file lock per device."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lease(home: Path, device: str) -> Iterator[float]:
    """Holds the device; yields the seconds that were waited. The lock dies with the process that holds it."""
    folder = home / "cache" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{device.replace(':', '-')}.lock").open("w") as file:
        started = time.monotonic()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield time.monotonic() - started
