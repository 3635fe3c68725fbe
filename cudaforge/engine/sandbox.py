"""Starts untrusted child processes, confined as far as this machine allows, and ends them whole.

Layers, each probed once and named in `isolation`: a process group of its own that is killed whole, user + network +
mount + pid + IPC namespaces (util-linux `unshare`), an environment made of an allow-list, a private scratch folder as
HOME and TMPDIR, resource limits and no new privileges (set by the child itself before it loads anything untrusted).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cudaforge.engine.protocol import Channel, Closed
from cudaforge.errors import EvaluatorError

KEEP = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDACXX", "CXX", "CC")
"""Environment variables a child may see; never a key, a token or a proxy."""
KEEP_PREFIXES = (
    "CUDA_VISIBLE_",
    "NVIDIA_",
    "OMP_NUM_",
    "GOMP_CPU_",
    "NCCL_NVLS_",
    "TORCH_SYMM_MEM_",
    "NVSHMEM_DISABLE_",
)
OUTPUT_CAP = 64 << 10
"""Bytes of a child's output that are kept: the last ones."""
NAMESPACES = (
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)


@functools.cache
def namespace_prefix() -> tuple[tuple[str, ...], str]:
    """The command that puts a child into namespaces of its own, and why there is none where it is empty."""
    unshare, setpriv = shutil.which("unshare"), shutil.which("setpriv")
    if unshare is None or setpriv is None:
        return (), "util-linux's unshare and setpriv are not installed"
    # setpriv: should the supervisor itself be killed, unshare goes with it, and the namespace's processes with that.
    command = (setpriv, "--pdeathsig", "KILL", unshare, *NAMESPACES, "--")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if done.returncode:
        return (), (done.stderr.strip().splitlines() or ["unshare failed"])[-1]
    return command, ""


def isolation() -> tuple[str, ...]:
    """The layers that `spawn` puts in force here; a missing one says why."""
    prefix, why = namespace_prefix()
    layers = ["own process group", "scrubbed environment", "private scratch", "resource limits", "no new privileges"]
    layers.append("user, network, mount, IPC and pid namespaces" if prefix else f"no namespaces: {why}")
    return tuple(layers)


def environment(scratch: Path, extra: dict[str, str] | None = None) -> dict[str, str]:
    """A child's whole environment."""
    kept = {k: v for k, v in os.environ.items() if k in KEEP or k.startswith(KEEP_PREFIXES)}
    bin_dir = str(Path(sys.executable).parent)
    # This process's own import path, so that the child finds the same packages, and never its working folder.
    roots = [p for p in sys.path if p and Path(p).is_dir()]
    return {
        **kept,
        "PATH": f"{bin_dir}:{kept.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
        "PYTHONPATH": os.pathsep.join(roots),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # Freed memory stays with the process: else glibc maps large outputs afresh on every call, and page faults,
        # not the kernel or eager, are what is timed on a CPU. The same for reference and candidate.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        **(extra or {}),
    }


class ChildDied(Exception):  # noqa: N818 - an outcome that the caller turns into a verdict
    """The child ended before it answered."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class ChildTimeout(Exception):  # noqa: N818 - likewise
    """The child did not answer in time; it has been killed."""


class ChildError(Exception):
    """The child answered with an error: `type`, `message`, `frames` [[file, line, function], ...]."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('type')}: {error.get('message')}")
        self.type = str(error.get("type", ""))
        self.message = str(error.get("message", ""))
        self.frames = [
            (str(f[0]), int(f[1]), str(f[2])) for f in error.get("frames", []) if isinstance(f, list) and len(f) == 3
        ]


LIVE: set[Child] = set()
"""Children that have not been closed."""


def kill_all() -> None:
    """Ends every child and removes its scratch folder: the last thing that a supervisor does."""
    for child in list(LIVE):
        child.close()


class Child:
    """One confined process and the channel to it.

    >>> with Child(["-m", "cudaforge.engine.candidate"], extra_env={}) as child:
    ...     child.ask({"do": "hello"}, timeout=60)
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        extra_env: dict[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        """Starts `wrapper... python ARGUMENTS --fd N` in namespaces. EvaluatorError where it cannot be started."""
        self.scratch = Path(tempfile.mkdtemp(prefix="cudaforge-"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = Channel(ours)
        self._tail = bytearray()
        prefix, _ = namespace_prefix()
        command = [*prefix, *wrapper, sys.executable, *arguments, "--fd", str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(self.scratch, extra_env),
                cwd=self.scratch,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise EvaluatorError(f"a child process cannot be started: {error}.") from None
        finally:
            theirs.close()
        LIVE.add(self)
        self._drain = threading.Thread(target=self._read_output, daemon=True)
        self._drain.start()

    def _read_output(self) -> None:
        # Reads on for ever and keeps the end: a flood neither blocks the child nor fills our memory.
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            while part := self.process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
                self._tail += part
                del self._tail[:-OUTPUT_CAP]

    @property
    def output(self) -> str:
        """The end of what the child printed. Untrusted."""
        return bytes(self._tail).decode("utf-8", "replace")

    def ask(self, message: dict[str, Any], timeout: float, fds: list[int] | None = None) -> dict[str, Any]:
        """Sends a message and waits for its answer.

        Raises ChildError (the child's code raised), ChildTimeout (killed after `timeout` seconds), ChildDied.
        """
        self.post(message, fds)
        return self.answer(timeout)

    def post(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Sends without waiting."""
        try:
            self.channel.send(message, fds)
        except (Closed, OSError):
            raise ChildDied(self._how()) from None

    def answer(self, timeout: float) -> dict[str, Any]:
        """Waits for the answer to the last `post`."""
        try:
            reply, received = self.channel.recv(timeout)
        except TimeoutError:
            self.kill()
            raise ChildTimeout from None
        except (Closed, OSError, ValueError):
            raise ChildDied(self._how()) from None
        for fd in received:
            os.close(fd)
        if "error" in reply:
            raise ChildError(reply["error"] if isinstance(reply["error"], dict) else {})
        return reply

    def _how(self) -> str:
        """How the process ended, in words."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its channel"
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(number).name}"
        return f"ended with exit code {code}"

    def preemptions(self) -> int:
        """How often the child's threads had to give up a core to somebody else, as the kernel counts it."""
        count, todo = 0, [self.process.pid]
        while todo:
            for task in Path(f"/proc/{todo.pop()}/task").glob("*"):
                with contextlib.suppress(OSError, ValueError):  # a thread may end while it is looked at
                    status = (task / "status").read_text()
                    count += int(status.rpartition("nonvoluntary_ctxt_switches:")[2])
                    todo += [int(pid) for pid in (task / "children").read_text().split()]
        return count

    def kill(self) -> None:
        """Ends the process, its group and everything in its pid namespace. Idempotent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def wait(self, timeout: float) -> int:
        """Waits for the process to end by itself; kills it after `timeout` seconds. Returns its exit code."""
        deadline = time.monotonic() + timeout
        try:
            return self.process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChildTimeout from None

    def close(self) -> None:
        """Kills the process and removes its scratch folder. Idempotent."""
        self.kill()
        LIVE.discard(self)
        self.channel.close()
        self._drain.join(2)
        if self.process.stdout is not None:
            self.process.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
