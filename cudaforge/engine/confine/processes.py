"""Namespaces, and the processes of a cage: who waits for whom, and who ends with whom."""

from __future__ import annotations

import os
import select
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cudaforge.engine.confine.cage import Layers
from cudaforge.engine.confine.linux import (
    CLONE_NEWUSER,
    NAMESPACES,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    check,
    libc,
    prctl,
)


def namespaces(layers: Layers, privileged: bool) -> bool:
    """Leaves the host's namespaces one by one; returns whether there is a user namespace, which root need not have."""
    owned = privileged and libc.unshare(NAMESPACES["UTS"]) == 0
    in_user_namespace = not owned and layers.attempt("user namespace", _user_namespace)
    for name, flag in NAMESPACES.items():
        layers.attempt(f"own {name} namespace", _unshare, flag)
    return in_user_namespace


def _unshare(flag: int) -> None:
    check(libc.unshare(flag), "unshare")


def _user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(text)


def own_session() -> None:
    """Leads a session, so that it can be killed as a group."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def die_with_parent(alive: Callable[[], bool]) -> None:
    """SIGKILL when the parent ends, and at once where it has ended before that was said."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not alive():
        os._exit(1)


def first_to_go() -> None:
    """When memory runs out, this process is killed and not what has started it."""
    score = Path("/proc/self/oom_score_adj")
    if score.read_text().strip() != "1000":
        score.write_text("1000")


def tell_pid(pid_fd: int, pid: int) -> None:
    """Writes a pid as a line and closes the descriptor."""
    os.write(pid_fd, b"%d\n" % pid)
    os.close(pid_fd)


def split(pid_fd: int | None) -> Callable[[], bool]:
    """Forks into the new pid namespace; returns, in the process that goes on, what says whether the reaper lives.

    The namespace's first process does nothing: the kernel shields it from signals, and a candidate in its place
    could not be seen to abort. The caller becomes the reaper: it waits, and ends as the caged process did.
    """
    ours, reapers = os.pipe()  # only the reaper holds the second end: when that hangs up, the reaper is gone
    reader = select.poll()
    reader.register(ours, 0)

    def alive() -> bool:
        return not reader.poll(0)

    first = os.fork()
    if first == 0:
        os.close(reapers)
        _be_first(alive)
    caged = os.fork()
    if caged:
        _reap(first, caged, reapers, pid_fd)
    os.close(reapers)
    if os.read(ours, 1) != b"g":
        os._exit(1)
    die_with_parent(alive)
    if pid_fd is not None:
        os.close(pid_fd)
    os.setsid()  # a signal to the own group must not reach the reaper
    return alive


def _be_first(alive: Callable[[], bool]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then buries the orphans by itself
        prctl(PR_SET_DUMPABLE, 0)
        die_with_parent(alive)
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _reap(first: int, caged: int, keep: int, pid_fd: int | None) -> NoReturn:
    """Waits for the caged process, ends whatever it left behind, and ends in the same way.

    It holds no descriptor but `keep`: who listens to the caged process must see its end.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if pid_fd is not None:
            tell_pid(pid_fd, caged)
        os.write(keep, b"g")
        os.closerange(0, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
        _, status = os.waitpid(caged, 0)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        if not os.WIFSIGNALED(status):
            os._exit(os.WEXITSTATUS(status))
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    finally:
        os._exit(1)


def settle(scratch: str) -> None:
    """Makes scratch this process's home; the own user has no name, and some libraries ask for one."""
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, LOGNAME="cudaforge", USER="cudaforge")
    tempfile.tempdir = None  # a zygote may have asked before
