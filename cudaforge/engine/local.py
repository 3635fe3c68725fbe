"""Evaluator adapter `local`: a supervisor process on this machine, started when first needed.

The supervisor is a process of its own, so that torch, a CUDA context or a driver fault never live in the process that
holds the run. `python -m cudaforge.engine.local --fd N --home DIR --device D` is that process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cudaforge.engine.protocol import Channel, Closed
from cudaforge.engine.sandbox import kill_all
from cudaforge.errors import CudaForgeError, EvaluatorError, TaskError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Request,
    Result,
    Verification,
    VerifyRequest,
)
from cudaforge_profiling.types import Profile

REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
RESULTS: dict[str, type[Baseline] | type[Evaluation] | type[Profile] | type[Verification]] = {
    "baseline": Baseline,
    "evaluate": Evaluation,
    "profile": Profile,
    "verify": Verification,
}
REQUEST_TIMEOUT_S = 3600.0


class LocalEvaluator:
    """Evaluates on this machine. `device` is `auto`, `cpu`, `cuda` or `cuda:N`; `home` holds the caches.

    One request at a time; asking again with a key that was answered in this session gives the same result.
    """

    def __init__(self, home: Path, device: str = "auto") -> None:
        self.home, self.device = home, device
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()
        self._done: dict[str, Result] = {}

    async def baseline(self, request: BaselineRequest) -> Baseline:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Baseline)
        return result

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Evaluation)
        return result

    async def profile(self, request: ProfileRequest) -> Profile:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Profile)
        return result

    async def verify(self, request: VerifyRequest) -> Verification:
        """See ports.Evaluator."""
        result = await self._request(request)
        assert isinstance(result, Verification)
        return result

    async def _request(self, request: Request) -> Result:
        async with self._turn:
            if request.key not in self._done:
                try:
                    self._done[request.key] = await asyncio.to_thread(self._ask, request)
                except asyncio.CancelledError:
                    self._stop(grace_s=0.0)  # what runs there is of no use to anybody any more
                    raise
            return self._done[request.key]

    def _ask(self, request: Request) -> Result:
        channel = self._channel or self._start()
        try:
            channel.send({"request": request.model_dump(mode="json")})
            reply, _ = channel.recv(REQUEST_TIMEOUT_S)
        except (Closed, OSError):
            how = self._stop()
            raise EvaluatorError(f"the evaluator's process ended ({how}).", "Run `cudaforge doctor`.") from None
        except TimeoutError:
            self._stop()
            raise EvaluatorError(f"no result within {REQUEST_TIMEOUT_S:.0f} s.") from None
        if "error" in reply:
            raise _raised(reply["error"])
        return RESULTS[request.kind].model_validate_json(reply["result"])

    def _start(self) -> Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        log = self.home / "logs"
        log.mkdir(parents=True, exist_ok=True)
        with (log / "evaluator.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cudaforge.engine.local", "--fd", str(theirs.fileno())),
                    *("--home", str(self.home), "--device", self.device),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                    # Its own threads must not spin on cores that what it measures needs; children do not inherit it.
                    "OMP_WAIT_POLICY": "passive",
                },
                start_new_session=True,  # Ctrl-C reaches the run, which ends its evaluator by closing the channel
            )
        theirs.close()
        self._channel = Channel(ours)
        return self._channel

    def _stop(self, grace_s: float = 10.0) -> str:
        """Ends the supervisor, killed after `grace_s` seconds; its children die with it. Says how it had ended."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
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

    async def close(self) -> None:
        """Ends the supervisor. Idempotent."""
        await asyncio.to_thread(self._stop)


def _raised(error: dict[str, Any]) -> CudaForgeError:
    kind = TaskError if error.get("kind") == "task" else EvaluatorError
    return kind(str(error.get("message", "")), str(error.get("hint", "")))


def _end_with_parent(parent: int) -> None:
    """Ends this process and its children when the process that started it has gone, whatever is being measured."""
    while os.getppid() == parent:
        time.sleep(0.5)
    kill_all()
    os._exit(1)


def main() -> None:
    """Serves requests over a channel until it closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    channel = Channel(socket.socket(fileno=arguments.fd))
    from cudaforge.engine.machine import resolve
    from cudaforge.engine.supervisor import Supervisor

    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    supervisor: Supervisor | None = None
    while True:
        try:
            message, _ = channel.recv()
        except Closed:
            break
        try:
            if supervisor is None:
                supervisor = Supervisor(arguments.home, resolve(arguments.device))
            result = supervisor.handle(REQUEST.validate_python(message["request"]))
            reply: dict[str, Any] = {"result": result.model_dump_json()}
        except CudaForgeError as error:
            kind = "task" if isinstance(error, TaskError) else "infrastructure"
            reply = {"error": {"kind": kind, "message": error.message, "hint": error.hint}}
        except Exception as error:  # a defect of ours is an infrastructure failure, and its trace is in the log
            import traceback

            traceback.print_exc()
            if supervisor is not None:
                supervisor.close()
            text = f"the evaluator failed: {type(error).__name__}: {error}"
            reply = {"error": {"message": text[:2000], "hint": f"See {arguments.home / 'logs' / 'evaluator.log'}."}}
        try:
            channel.send(reply)
        except Closed:
            break
    if supervisor is not None:
        supervisor.close()
    kill_all()


if __name__ == "__main__":
    main()
