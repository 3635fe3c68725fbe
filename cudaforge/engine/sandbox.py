"""Starts untrusted child processes in cages (confine) and ends them whole.

Most are forked from a zygote that has imported torch; what has to run under another program (ncu, compute-sanitizer)
gets a fresh interpreter. Either way the child speaks over one channel, its output is drained and capped, and it is
killed with everything that it has started.
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

from cudaforge.engine import confine, frozen
from cudaforge.engine.confine import Cage
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
LIMITS = {"NPROC": 4096, "NOFILE": 4096}
"""Of every caged process. Generous, since OpenMP and CUDA start threads."""
OUTPUT_CAP = 64 << 10
"""Bytes of a child's output that are kept: the last ones."""
START_TIMEOUT_S = 120.0
WOKEN_S = 1e-4
"""Processor time of a stopped process that is no error of counting."""


CLOCK_LAYERS = ("own process, killed whole", "scrubbed environment", "clock and answer outside of it")
"""What holds without any help of the machine's."""


@functools.cache
def isolation() -> tuple[str, ...]:
    """The layers that a candidate's process is confined by on this machine; one that is missing says why."""
    return (*CLOCK_LAYERS, *confine.probe(programs=False))


@functools.cache
def device_nodes(device: str) -> tuple[str, ...]:
    """The device nodes of one GPU, `cuda:N`; of all where NVML does not say which is its own. None for the CPU."""
    if device == "cpu":
        return ()
    try:
        import pynvml
        import torch

        from cudaforge_profiling.devices import nvml_handle

        pynvml.nvmlInit()
        handle = nvml_handle(str(torch.cuda.get_device_properties(device).uuid))
        return confine.gpu_nodes([int(pynvml.nvmlDeviceGetMinorNumber(handle))])
    except Exception:  # a MIG slice or a virtual GPU does not say
        return confine.gpu_nodes()


def environment(scratch: Path, extra: dict[str, str] | None = None) -> dict[str, str]:
    """A child's whole environment."""
    kept = {k: v for k, v in os.environ.items() if k in KEEP or k.startswith(KEEP_PREFIXES)}
    bin_dir = str(Path(sys.executable).parent)
    return {
        **kept,
        **private_folders(scratch),
        "PATH": f"{bin_dir}:{kept.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p and Path(p).is_dir()),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # Freed memory stays with the process: else glibc maps large outputs afresh on every call, and page faults,
        # not the kernel or eager, are what is timed on a CPU. The same for reference and candidate.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        # A process that has imported numpy is to have one thread, or it cannot be forked.
        "OPENBLAS_NUM_THREADS": "1",
        # torch.compile's helpers would be processes that nobody stops while something else is timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        **(extra or {}),
    }


def private_folders(scratch: Path) -> dict[str, str]:
    """The part of the environment that differs from child to child."""
    return {"HOME": str(scratch), "TMPDIR": str(scratch), "TRITON_HOME": str(scratch), "USER": "cudaforge"}


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
    Zygote.close_shared()


class Zygote:
    """The process that forks (zygote.py). One per supervisor, started when first needed and again should it die."""

    _shared: Zygote | None = None

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = Channel(ours)
        self._home = tempfile.mkdtemp(prefix="cudaforge-zygote-")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cudaforge.engine.zygote", "--fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment(Path(self._home)),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        finally:
            theirs.close()
        try:
            self.threads = int(self.channel.recv(START_TIMEOUT_S)[0]["threads"])
        except (Closed, OSError, TimeoutError, KeyError, ValueError):
            self.close()
            raise EvaluatorError(
                "the process that forks the others did not start.", "Run `cudaforge doctor`."
            ) from None

    @classmethod
    def shared(cls) -> Zygote:
        """The living one."""
        if cls._shared is None or cls._shared.process.poll() is not None:
            if cls._shared is not None:
                cls._shared.close()
            cls._shared = cls()
        return cls._shared

    @classmethod
    def close_shared(cls) -> None:
        """Ends it. Idempotent."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared = None

    def ask(self, message: dict[str, Any], fds: list[int] | None = None) -> dict[str, Any]:
        """Sends a message and waits for its answer. EvaluatorError where the zygote is gone."""
        try:
            self.channel.send(message, fds)
            return self.channel.recv(START_TIMEOUT_S)[0]
        except (Closed, OSError, TimeoutError, ValueError):
            self.close()
            raise EvaluatorError("the process that forks the others has ended.", "Ask again.") from None

    def close(self) -> None:
        """Ends it and all that it has forked. Idempotent."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


class Child:
    """One caged process and the channel to it.

    >>> with Child("candidate", read=(str(package),)) as child:
    ...     child.ask({"do": "load", ...}, timeout=60)
    """

    def __init__(
        self,
        role: str,
        *,
        read: tuple[str, ...] = (),
        write: tuple[str, ...] = (),
        programs: bool = False,
        limits: dict[str, int] | None = None,
        device: str = "cpu",
        extra_env: dict[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        """Starts `role` (candidate, reference). With a `wrapper` (ncu ...) in a fresh interpreter below it, which then
        may start programs. EvaluatorError where it cannot be started."""
        self.scratch = Path(tempfile.mkdtemp(prefix="cudaforge-"))
        self.cage = Cage(
            scratch=str(self.scratch),
            read=read,
            write=write,
            devices=device_nodes(device),
            programs=programs or bool(wrapper),
            limits=limits or {},
        )
        self.pid = 0
        self.layers: tuple[str, ...] = ()
        self._stopped = False
        self.watched, self.woken = False, False
        """Whether processor time is read around stops, and whether any was used during the last one."""
        self._still_s, self._stood_still = 0.0, 0.0
        self._tail = bytearray()
        self._zygote: Zygote | None = None
        self._reaper = 0
        self.process: subprocess.Popen[bytes] | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = Channel(ours)
        output, write_end = os.pipe()
        self._output = os.fdopen(output, "rb", buffering=0)
        try:
            if wrapper:
                self._execute(role, theirs, write_end, extra_env, wrapper)
            else:
                self._fork(role, theirs, write_end, extra_env)
        except BaseException:
            self._output.close()
            self.channel.close()
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        LIVE.add(self)
        self._drain = threading.Thread(target=self._read_output, daemon=True)
        self._drain.start()

    def _fork(self, role: str, theirs: socket.socket, output: int, extra_env: dict[str, str] | None) -> None:
        env = {**private_folders(self.scratch), **(extra_env or {})}
        message = {"do": "fork", "role": role, "cage": self.cage.to_json(), "env": env}
        self._zygote = Zygote.shared()
        reply = self._zygote.ask(message, [theirs.fileno(), output])
        if "error" in reply:
            raise EvaluatorError(f"a child process cannot be forked: {reply['error']['message']}.")
        self._reaper, self.pid = reply["reaper"], reply["pid"] or reply["reaper"]

    def _execute(
        self, role: str, theirs: socket.socket, output: int, extra_env: dict[str, str] | None, wrapper: tuple[str, ...]
    ) -> None:
        module = f"cudaforge.engine.{role}"
        command = [sys.executable, "-m", "cudaforge.engine.confine", "--parent", str(os.getpid())]
        try:
            self.process = subprocess.Popen(
                [
                    *command,
                    "--cage",
                    self.cage.to_json(),
                    "--",
                    *wrapper,
                    sys.executable,
                    "-m",
                    module,
                    "--fd",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self.scratch, extra_env),
                cwd=self.scratch,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            raise EvaluatorError(f"a child process cannot be started: {error}.") from None
        self.pid = self._reaper = self.process.pid

    def started(self, timeout: float) -> tuple[str, ...]:
        """Waits until a forked child is in its cage; returns its layers. ChildDied where entering fails."""
        if self._zygote is not None and not self.layers:
            self.layers = tuple(str(layer) for layer in self.answer(timeout).get("layers", []))
        return self.layers

    def _read_output(self) -> None:
        # Reads on for ever and keeps the end: a flood neither blocks the child nor fills our memory.
        with contextlib.suppress(ValueError, OSError):
            while part := self._output.read(1 << 16):
                self._tail += part
                del self._tail[:-OUTPUT_CAP]

    @property
    def output(self) -> str:
        """The end of what the child printed. Untrusted."""
        return bytes(self._tail).decode("utf-8", "replace")

    def stop(self) -> float:
        """Makes the child stand still (SIGSTOP) until `go_on`. On return none of its threads runs.

        Returns since when, by time.perf_counter.
        """
        if not self._stopped:
            self._stopped = True
            if not frozen.stop(self.pid):
                self.kill()  # what cannot be made to stand still cannot be timed
            self._stood_still = time.perf_counter()
            if self.watched:
                self._still_s = frozen.cpu_seconds(self.pid)
        return self._stood_still

    def go_on(self, *, spread: bool = False) -> float:
        """Lets a stopped child run; `spread`: with its threads on cores of their own to begin with.

        Returns when that was, by time.perf_counter.
        """
        if not self._stopped:
            return time.perf_counter()
        self._stopped = False
        self.woken = self.watched and frozen.cpu_seconds(self.pid) - self._still_s > WOKEN_S
        return (frozen.go_on_spread if spread else frozen.go_on)(self.pid)

    def ask(self, message: dict[str, Any], timeout: float, fds: list[int] | None = None) -> dict[str, Any]:
        """Sends a message and waits for its answer; a stopped child goes on first.

        Raises ChildError (the child's code raised), ChildTimeout (killed after `timeout` seconds), ChildDied.
        """
        self.go_on()
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
        code = self.exit_code(5.0)
        if code is None:
            self.kill()
            return "closed its channel or sent what is no message"
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(number).name}"
        return f"ended with exit code {code}"

    def exit_code(self, timeout: float) -> int | None:
        """The exit code, waited for; negative for a signal, None while it lives."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout)
            return None
        if self._code is None and self._zygote is not None:
            try:
                self._code = self._zygote.ask({"do": "wait", "reaper": self._reaper, "timeout": timeout})["code"]
            except EvaluatorError:
                self._code = -signal.SIGKILL
        return self._code

    _code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code(0.0) is None

    def preemptions(self) -> int:
        """How often the child's threads had to give up a core to somebody else, as the kernel counts it."""
        count = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError, ValueError):  # a thread may end while it is looked at
                count += int((task / "status").read_text().rpartition("nonvoluntary_ctxt_switches:")[2])
        return count

    def kill(self) -> None:
        """Ends the process, its group and everything in its pid namespace. Idempotent."""
        # The caged process first: its reaper then collects it and ends as it did. One that does not is killed, too.
        for pid, seconds in ((self.pid, 2.0), (self._reaper, 10.0)):
            if pid and self._code is None:
                for end in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        end(pid, signal.SIGKILL)
                if self.exit_code(seconds) is not None:
                    return

    def wait(self, timeout: float) -> int:
        """Waits for the process to end by itself; kills it after `timeout` seconds. Returns its exit code."""
        code = self.exit_code(timeout)
        if code is None:
            self.kill()
            raise ChildTimeout
        return code

    def close(self) -> None:
        """Kills the process and removes its scratch folder. Idempotent."""
        self.kill()
        LIVE.discard(self)
        self.channel.close()
        self._drain.join(2)
        self._output.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_caged(
    command: list[str],
    *,
    scratch: Path,
    log: Any,
    timeout_s: float,
    read: tuple[str, ...] = (),
    write: tuple[str, ...] = (),
) -> int:
    """Runs a program (a compiler) in a cage of its own; its output goes to the file `log`. Returns the exit code.

    Raises subprocess.TimeoutExpired after `timeout_s` seconds; whatever it has started is killed.
    """
    cage = Cage(str(scratch), read=read, write=write, programs=True, limits=LIMITS)
    report, report_fd = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cudaforge.engine.confine", "--parent", str(os.getpid())),
            *("--report-fd", str(report_fd), "--cage", cage.to_json(), "--", *command),
        ],
        pass_fds=(report_fd,),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment(scratch),
        cwd=scratch,
        start_new_session=True,
    )
    os.close(report_fd)
    try:
        code = process.wait(timeout_s)
        with os.fdopen(report) as said:
            if not said.read(1):  # it never came to the compiler: no fault of the sources
                log.seek(0)
                raise EvaluatorError(f"a cage for the compiler cannot be entered: {log.read(2000)!r}.")
        return code
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
