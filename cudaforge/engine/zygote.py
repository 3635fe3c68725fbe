"""The zygote: has imported torch, runs one thread and nothing else, and forks processes that are ready at once.

A fresh interpreter takes seconds to import torch; a fork takes milliseconds. That is safe as long as the parent has one
thread, has run no torch operation and has not touched CUDA, so this process does none of it, and refuses to fork
should it ever find a second thread. It holds no secret: what it forks goes into its cage before it reads a message.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from cudaforge.engine.confine import Cage, enter
from cudaforge.engine.protocol import Channel, Closed

ROLES = ("candidate", "reference")
"""Modules with an `answer(channel)`."""


def main() -> None:
    """Serves `fork` and `wait` until the channel closes; ends with everything that it has forked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    channel = Channel(socket.socket(fileno=parser.parse_args().fd))
    _import_what_children_need()
    threads = len(list(Path("/proc/self/task").iterdir()))
    channel.send({"threads": threads})
    while True:
        try:
            message, fds = channel.recv()
        except Closed:
            return
        reply = _fork(message, fds, channel) if message["do"] == "fork" else _wait(message)
        channel.send(reply)


def _import_what_children_need() -> None:
    import torch  # noqa: F401

    import cudaforge.engine.candidate
    import cudaforge.engine.reference  # noqa: F401

    with contextlib.suppress(Exception):
        # Triton asks programs for versions and paths and remembers the answers; children without exec inherit them.
        from triton import knobs
        from triton.backends.nvidia.compiler import get_ptxas_version
        from triton.backends.nvidia.driver import library_dirs
        from triton.runtime.build import platform_key

        get_ptxas_version(90)
        get_ptxas_version(100)
        platform_key()
        _ = knobs.nvidia.ptxas, knobs.nvidia.cuobjdump, knobs.nvidia.nvdisasm
        library_dirs()


def _fork(message: dict[str, Any], fds: list[int], own: Channel) -> dict[str, Any]:
    """Forks one process into its cage. It speaks over fds[0] and prints to fds[1]."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        for fd in fds:
            os.close(fd)
        return {"error": {"type": "RuntimeError", "message": "the zygote has more than one thread"}}
    theirs, output = fds
    read_end, write_end = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        own.close()
        _live(message, theirs, output, write_end, parent)  # never returns
    for fd in (theirs, output, write_end):
        os.close(fd)
    with open(read_end) as pipe:  # noqa: PTH123 - a descriptor, not a path
        said = pipe.readline().strip()
    return {"reaper": pid, "pid": int(said) if said.isdigit() else 0}


def _live(message: dict[str, Any], fd: int, output: int, pid_fd: int, parent: int) -> None:
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.update(message["env"])
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        channel = Channel(socket.socket(fileno=fd))
        layers = enter(Cage.from_json(message["cage"]), pid_fd=pid_fd, parent=parent)
        with contextlib.suppress(OSError):
            os.close(pid_fd)
        channel.send({"layers": list(layers)})
        module = sys.modules[f"cudaforge.engine.{message['role']}"]
        module.answer(channel)
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _wait(message: dict[str, Any]) -> dict[str, Any]:
    """How a forked process has ended: `code` as subprocess has it, None while it lives after `timeout` seconds."""
    until = time.monotonic() + message["timeout"]
    while True:
        try:
            pid, status = os.waitpid(message["reaper"], os.WNOHANG)
        except ChildProcessError:
            return {"code": 0}
        if pid:
            return {"code": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > until:
            return {"code": None}
        time.sleep(0.002)


if __name__ == "__main__":
    main()
