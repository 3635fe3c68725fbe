"""The processes behind the local evaluator: a lane for each device, and builders beside them.

A *lane* is a supervisor: it alone touches its device, and does one request after the other. A *builder* runs compilers,
so that a lane finds the binary in the cache; it never touches a device. Both are processes of their own, so that torch,
a CUDA context or a driver fault never live in the process that holds the run. `python -m cudaforge.engine.worker lane
--fd N --home DIR --device D` is such a process; `Worker` is the other end of its channel.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from cudaforge.engine.protocol import Channel, Closed
from cudaforge.errors import CudaForgeError, EvaluatorError, TaskError
from cudaforge.evaluation import EvaluateOptions, Request
from cudaforge.task import Task

REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
REQUEST_TIMEOUT_S = 3600.0


class Worker:
    """One process and the channel to it; started when it is first asked, and again after it has ended."""

    def __init__(self, role: Literal["lane", "builder"], home: Path, device: str) -> None:
        self.role, self.home, self.device = role, home, device
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Asks and waits. Raises TaskError or EvaluatorError, as the process says or where it ends."""
        channel = self._channel or self._start()
        try:
            channel.send(message)
            reply, _ = channel.recv(REQUEST_TIMEOUT_S)
        except (Closed, OSError):
            how = self._stop_if(channel)
            raise EvaluatorError(f"the evaluator's process ended ({how}).", "Run `cudaforge doctor`.") from None
        except TimeoutError:
            self._stop_if(channel)
            raise EvaluatorError(f"no result within {REQUEST_TIMEOUT_S:.0f} s.") from None
        if "error" in reply:
            raise _raised(reply["error"])
        return reply

    def _start(self) -> Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        log = self.home / "logs"
        log.mkdir(parents=True, exist_ok=True)
        with (log / "evaluator.log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cudaforge.engine.worker", self.role, "--fd", str(theirs.fileno())),
                    *("--home", str(self.home), "--device", self.device),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                    "PYTHONSAFEPATH": "1",
                    # Its own threads must not spin on cores that what it measures needs; children do not inherit it.
                    "OMP_WAIT_POLICY": "passive",
                },
                start_new_session=True,  # Ctrl-C reaches the run, which ends its evaluator by closing the channel
            )
        theirs.close()
        self._channel = Channel(ours)
        return self._channel

    def _stop_if(self, channel: Channel) -> str:
        """Ends the process behind this channel, unless it has ended and another one is at work by now."""
        return self.stop() if self._channel is channel else "it was stopped"

    def stop(self, grace_s: float = 10.0) -> str:
        """Ends the process, killed after `grace_s` seconds; its children die with it. Says how it had ended."""
        process, channel = self.process, self._channel
        self.process = self._channel = None
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.sock.shutdown(socket.SHUT_RDWR)
            channel.close()
        if process is None:
            return "not running"
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"exit code {process.returncode}"


def _raised(error: dict[str, Any]) -> CudaForgeError:
    kind = TaskError if error.get("kind") == "task" else EvaluatorError
    return kind(str(error.get("message", "")), str(error.get("hint", "")))


# -- the process ---------------------------------------------------------------------------------------------------


class _Lane:
    """Answers {do: describe}, {task, options} (Supervisor.prepare), and {request, built_late}: one of the Evaluator
    port's, see Supervisor.handle."""

    def __init__(self, home: Path, device: str) -> None:
        from cudaforge.engine.machine import gpu_count, resolve
        from cudaforge.engine.supervisor import Supervisor

        where = resolve(device)
        self.supervisor = Supervisor(home, where)
        self.known = {"where": where, "gpus": gpu_count(), "device": self.supervisor.device.model_dump(mode="json")}

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if "task" in message:
            task, options = Task.model_validate(message["task"]), EvaluateOptions.model_validate(message["options"])
            self.supervisor.prepare(task, options)
            return {}
        if "request" not in message:
            return self.known
        request = REQUEST.validate_python(message["request"])
        return {"result": self.supervisor.handle(request, built_late=message["built_late"]).model_dump_json()}

    def close(self) -> None:
        self.supervisor.close()


class _Builder:
    """Answers {kernel, device, timeout_s}: builds into the cache, where a lane finds the binary or the diagnostics."""

    def __init__(self, home: Path, device: str) -> None:
        self.cache = home / "cache"

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        from cudaforge.engine.builder import BuildFailed, BuildTimeout, build_ahead, compile_kernel
        from cudaforge.kernel import Kernel
        from cudaforge_profiling.types import Device

        kernel, device = Kernel.model_validate(message["kernel"]), Device.model_validate(message["device"])
        started, timeout_s = time.monotonic(), float(message["timeout_s"])
        try:
            built = compile_kernel(kernel, device, self.cache, timeout_s)
            if kernel.language.source_name is None:
                build_ahead(kernel, built, timeout_s)
            build = built.build
        except BuildFailed as failed:
            build = failed.build
        except BuildTimeout:
            return {"timeout": True, "seconds": time.monotonic() - started}
        return {"build": build.model_dump(mode="json"), "seconds": time.monotonic() - started}

    def close(self) -> None: ...


def _end_with_parent(parent: int) -> None:
    """Ends this process and its children when the process that started it has gone, whatever is being measured."""
    from cudaforge.engine.sandbox import kill_all

    while os.getppid() == parent:
        time.sleep(0.5)
    kill_all()
    os._exit(1)


def main() -> None:
    """Answers over a channel until it closes."""
    from cudaforge.engine.sandbox import kill_all

    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("lane", "builder"))
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    channel = Channel(socket.socket(fileno=arguments.fd))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    make: Callable[[Path, str], _Lane | _Builder] = _Lane if arguments.role == "lane" else _Builder
    role: _Lane | _Builder | None = None
    while True:
        try:
            message, _ = channel.recv()
        except Closed:
            break
        try:
            role = role or make(arguments.home, arguments.device)
            reply = role.answer(message)
        except CudaForgeError as error:
            kind = "task" if isinstance(error, TaskError) else "infrastructure"
            reply = {"error": {"kind": kind, "message": error.message, "hint": error.hint}}
        except Exception as error:  # a defect of ours is an infrastructure failure, and its trace is in the log
            import traceback

            traceback.print_exc()
            if role is not None:
                role.close()
            text = f"the evaluator failed: {type(error).__name__}: {error}"
            reply = {"error": {"message": text[:2000], "hint": f"See {arguments.home / 'logs' / 'evaluator.log'}."}}
        try:
            channel.send(reply)
        except Closed:
            break
    if role is not None:
        role.close()
    kill_all()


if __name__ == "__main__":
    main()
