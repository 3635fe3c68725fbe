"""A stopped process and its memory: how the supervisor reads outputs on the CPU, and keeps bystanders still.

A candidate is stopped (SIGSTOP) whenever it is not asked for something: while inputs are written, while the baseline is
timed, and from the moment at which it says that it is done. What lies in its memory then is the answer, read from
outside (`process_vm_readv`); work that was put off is not in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

SPREAD_S = 3e-4
"""How long the threads of a process that goes on are held on cores of their own."""
POLL_S = 2e-5
"""Between two looks at whether a process stands still."""

Mapping = tuple[int, int, int, str]
"""Start, end, offset in the file, and path of a mapping."""

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Segment(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


_LIBC.process_vm_readv.restype = ctypes.c_ssize_t
_LIBC.process_vm_readv.argtypes = [
    ctypes.c_int,
    ctypes.POINTER(_Segment),
    ctypes.c_ulong,
    ctypes.POINTER(_Segment),
    ctypes.c_ulong,
    ctypes.c_ulong,
]


def stop(pid: int, timeout_s: float = 10.0) -> bool:
    """Stops a process; True once all of its threads stand still."""
    until = time.perf_counter() + timeout_s
    while time.perf_counter() < until:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # again and again: one of its own SIGCONTs takes back what is under way
        if all(state in "TtZX" for state in _states(pid)):
            return True
        time.sleep(POLL_S)  # a thread has to run to stop: whoever polls on its core makes it wait for the next tick
    return False


def go_on(pid: int) -> float:
    """Lets a stopped process run. Returns when that was, by time.perf_counter."""
    started = time.perf_counter()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return started


def go_on_spread(pid: int) -> float:
    """Lets a stopped process run with its threads on cores of their own to begin with. Returns when that was.

    Threads that wake up together may find themselves on one core, and stay there for the milliseconds that the
    scheduler takes to notice: a good part of a batch. After a moment each may run wherever it likes again.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return go_on(pid)
    others = cores[1:]
    for i, thread in enumerate(_threads(pid)):
        _set_cores(thread, {cores[0] if i == 0 else others[(i - 1) % len(others)]})
    started = go_on(pid)
    time.sleep(SPREAD_S)
    for thread in _threads(pid):
        _set_cores(thread, set(cores))
    return started


def _threads(pid: int) -> list[int]:
    """Thread ids, the main thread first."""
    return sorted(int(task.name) for task in Path(f"/proc/{pid}/task").glob("*"))


def _set_cores(thread: int, cores: set[int]) -> None:
    with contextlib.suppress(OSError):  # a thread may have ended; a container may refuse
        os.sched_setaffinity(thread, cores)


def _states(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            yield (task / "stat").read_text().rpartition(")")[2].split()[0]


def read(pid: int, address: int, into: torch.Tensor) -> None:
    """Fills a contiguous CPU tensor from another process's memory. OSError where there is none, or it is refused."""
    done, size = 0, into.numel() * into.element_size()
    while done < size:
        ours, theirs = _Segment(into.data_ptr() + done, size - done), _Segment(address + done, size - done)
        got = _LIBC.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
        if got <= 0:
            number = ctypes.get_errno()
            raise OSError(number, f"memory of process {pid} cannot be read: {os.strerror(number)}")
        done += got


def cpu_seconds(pid: int) -> float:
    """Processor seconds that all threads of a process have used, as the scheduler counts them."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def program_counters(pid: int) -> list[int]:
    """Where each thread of a stopped process stands: its instruction pointer, 0 for one that waits in the kernel."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            words = (task / "syscall").read_text().split()
            found.append(int(words[-1], 16) if words[0] == "-1" else 0)
    return found


def mapped_files(pid: int) -> list[Mapping]:
    """Executable mappings of a process: start, end, offset in the file, path (empty for memory of no file)."""
    found = []
    lines = Path(f"/proc/{pid}/maps").read_bytes().decode(errors="surrogateescape").rstrip("\n")
    for line in lines.split("\n"):  # a file's name may hold what splitlines takes for the end of one
        span, access, offset, _, _, *path = line.split(maxsplit=5)
        if "x" in access:
            start, end = (int(part, 16) for part in span.split("-"))
            found.append((start, end, int(offset, 16), path[0] if path else ""))
    return found
