"""One process at a time checks, times or profiles on a device: an advisory file lock per device, machine-wide.

Whatever cache folder, run or service a process belongs to, the device is the same. A lease is taken for the time in
which something is measured, and for builds where the processor is what is measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cudaforge.errors import EvaluatorError

FOLDER = Path("/tmp/cudaforge-leases")  # not TMPDIR: that differs from process to process


@contextlib.contextmanager
def lease(device: str, waits: Callable[[], None] = lambda: None, folder: Path = FOLDER) -> Iterator[float]:
    """Holds `device`, a name that every process has for it (a GPU's UUID, `cpu`); yields the seconds that were waited.

    `waits` is called once if somebody else holds it. The lock dies with the process that holds it.
    """
    with contextlib.ExitStack() as files:
        started = time.monotonic()
        turnstile, file = (_open(folder, name, files) for name in (f"{device}-next", device))
        # Whoever waits for the device waits in the turnstile, so that who has it cannot take it again at once.
        try:
            fcntl.flock(turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield time.monotonic() - started


def _open(folder: Path, device: str, files: contextlib.ExitStack) -> int:
    """The lock file, usable by every user of the machine; nobody else's link is followed."""
    try:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)
        path = folder / f"{re.sub(r'[^A-Za-z0-9-]+', '-', device)}.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EvaluatorError(f"the lease of {device} cannot be opened: {error}", f"Look at {folder}.") from None
    files.callback(os.close, file)
    found = os.fstat(file)
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) != 0o666:
        os.fchmod(file, 0o666)  # the umask had its way
    return file
