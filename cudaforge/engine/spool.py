"""Evaluations through a shared folder: for batch schedulers and for GPU machines without network.

`SpoolEvaluator` puts requests into the folder and waits for results, `serve` answers them with another Evaluator,
any number of them at once, on any number of hosts; spool_files.py says what lies in the folder. On the machine with
the GPU: `cudaforge evaluator --spool DIR`, or `python -m cudaforge.engine.spool --spool DIR`, which needs only what
requirements-evaluator.txt lists.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, assert_never

from cudaforge.engine.spool_files import AnyRequest, Claim, Heartbeat, Outcome, Spool, work_of
from cudaforge.errors import CudaForgeError, EvaluatorError, ExitCode, Suspended, TaskError
from cudaforge.evaluation import (
    Baseline,
    BaselineRequest,
    EvaluateRequest,
    Evaluation,
    ProfileRequest,
    Result,
    Verification,
    VerifyRequest,
)
from cudaforge.ports import Evaluator
from cudaforge_profiling.types import Profile

WAIT_S = 3600.0
"""How long a question waits while an evaluator is alive, before the run suspends: an hour, as queues can be long."""
LEASE_S = 90.0
"""How long an evaluator may be silent before its claim goes to another: above the attribute cache of NFS (60 s)."""
TRIES = 2
"""How often an evaluator tries a request that it cannot answer for a reason of its own."""
FINISH_TRIES = 60
"""How often a result is offered to a folder that fails before its request is given back."""

R = TypeVar("R", Baseline, Evaluation, Profile, Verification)


class SpoolEvaluator:
    """Evaluator port over a spool folder.

    Results stay in the folder: asking again with the same key gives the same result. An error is delivered once
    (EvaluatorError; TaskError for a task that cannot run), then moved to `rejected/`, so that a resumed run asks
    anew. Where no evaluator is alive, or none answers within `wait_s` seconds, Suspended is raised; the request
    stays and the result can be had later. `patient`: it waits for as long as it takes, evaluator or not.
    """

    def __init__(self, directory: Path, wait_s: float = WAIT_S, *, poll_s: float = 0.5, patient: bool = False) -> None:
        self._spool = Spool(directory)
        self._wait_s = wait_s
        self._poll_s = poll_s
        self._patient = patient

    async def baseline(self, request: BaselineRequest) -> Baseline:
        return await self._ask(request, Baseline)

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        return await self._ask(request, Evaluation)

    async def profile(self, request: ProfileRequest) -> Profile:
        return await self._ask(request, Profile)

    async def verify(self, request: VerifyRequest) -> Verification:
        return await self._ask(request, Verification)

    async def close(self) -> None:
        """Nothing runs on this side."""

    async def _ask(self, request: AnyRequest, expected: type[R]) -> R:
        try:
            outcome = await self._wait(request)
            if outcome.error:
                self._spool.withdraw(request.key, "An error, delivered to who asked.")
        except OSError as error:
            raise EvaluatorError(
                f"The spool {self._spool.directory} cannot be used: {error}.", "Is the folder mounted and writable?"
            ) from None
        if outcome.error and outcome.blame == "task":
            raise TaskError(outcome.error, outcome.hint)
        if outcome.error:
            by = f" ({outcome.evaluator})" if outcome.evaluator else ""
            raise EvaluatorError(f"The evaluator{by} has no result: {outcome.error.rstrip('.')}.", outcome.hint)
        if outcome.work != work_of(request) or not isinstance(outcome.result, expected):
            raise EvaluatorError(
                f"The spool has a result of other work ({outcome.work}) under the key {request.key!r}.",
                "Two runs use one key; give each its own spool folder.",
            )
        return outcome.result

    async def _wait(self, request: AnyRequest) -> Outcome:
        """The outcome of a request. Raises Suspended and OSError."""
        spool = self._spool
        outcome = spool.outcome(request.key) if spool.results.is_dir() else None
        if outcome is not None:
            return outcome
        spool.create()
        spool.submit(request)
        began = time.monotonic()
        deadline = began + self._wait_s
        while True:
            alive = spool.alive()  # before the look: what an evaluator gave before it left is seen
            outcome = spool.outcome(request.key)
            if outcome is not None:
                return outcome
            if not self._patient and (not alive or time.monotonic() >= deadline):
                why = f"the evaluator gave no result within {self._wait_s:g} s" if alive else "no evaluator is running"
                raise Suspended(
                    f"An evaluation waits in the spool {spool.directory}: {why}.",
                    f"Run `cudaforge evaluator --spool {spool.directory}` on the machine with the GPU, "
                    "then `cudaforge resume RUN`.",
                    waiting_for=request.key,
                )
            # Soon at first, for what takes no time; a look costs a folder on a network little then.
            await asyncio.sleep(min(self._poll_s, max(0.02, (time.monotonic() - began) / 4)))


async def serve(
    directory: Path,
    evaluator: Evaluator,
    *,
    drain: bool = False,
    slots: Callable[[], Awaitable[int]] | None = None,
    lease_s: float = LEASE_S,
    poll_s: float = 1.0,
    name: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Answers the requests in a spool folder with `evaluator`, which the caller closes.

    Args:
        slots: says how many requests to claim at a time, asked when there is one: more than one where the evaluator
            builds one kernel while it measures another.
        drain: return when no request waits; otherwise serve until cancelled. What a live evaluator has claimed does
            not wait.
        lease_s: seconds of silence (kill -9, power cut) after which others take the claim over. A thread keeps the
            lease, so an evaluator that blocks the event loop keeps it too.
        poll_s: seconds between two looks into an empty spool.
        name: of this evaluator in the folder; the host's by default. A random part is added.
        say: gets one line for each thing that happens.

    Returns:
        How many requests were answered, errors among them.

    Cancelling gives the present claims back for others to take. Raises EvaluatorError where the folder cannot be a
    spool, or fails while draining; without `drain`, a folder that fails is tried again, as shared folders recover.
    """
    spool = Spool(directory)
    owner = _owner(name)
    answered, at_once, trouble = 0, 1, ""
    try:
        spool.create()
        spool.sweep()
        with _alive(spool, owner, lease_s):
            say(f"{owner} serves {directory}")
            async with _Working() as working:
                while True:
                    try:
                        for line in spool.reap():
                            say(line)
                        while len(working.tasks) < at_once and (claim := spool.claim(owner)) is not None:
                            working.begin(_work(spool, claim, owner, evaluator, poll_s, say))
                            if slots is not None:
                                with suppress(EvaluatorError):  # who is at work finds out, too
                                    at_once, slots = await slots(), None
                        if not working.tasks and drain:
                            return answered
                        answered += await working.ended(poll_s if len(working.tasks) < at_once else None)
                        trouble = ""
                    except OSError as error:
                        if drain:
                            raise
                        if str(error) != trouble:
                            trouble = str(error)
                            say(f"the spool fails, trying on: {trouble}")
                        await asyncio.sleep(poll_s)
    except OSError as error:
        raise EvaluatorError(f"The spool {directory} cannot be used: {error}.", "Is the folder writable?") from None


class _Working:
    """Claims in work. What has not ended when the block ends is cancelled, and so given back."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Takes one up."""
        self.tasks.add(asyncio.create_task(work))

    async def ended(self, wait_s: float | None) -> int:
        """How many have ended, after `wait_s` seconds at most; raises what one of them has raised."""
        if not self.tasks:
            await asyncio.sleep(wait_s or 0.0)
            return 0
        done, self.tasks = await asyncio.wait(self.tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        failures = [error for task in done if (error := task.exception())]
        if failures:
            raise failures[0]
        return len(done)

    async def __aenter__(self) -> _Working:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _work(
    spool: Spool, claim: Claim, owner: str, evaluator: Evaluator, poll_s: float, say: Callable[[str], None]
) -> None:
    """Answers one claimed request; gives it back where this is cancelled or the folder fails."""
    request = claim.request
    started = time.monotonic()
    try:
        for attempt in range(1, TRIES + 1):
            try:
                result = await answer(evaluator, request)
                outcome = Outcome.of(request, result, owner, time.monotonic() - started)
                break
            except Exception as error:  # whatever one request does to the evaluator, the next one gets its turn
                outcome = Outcome.failure(request, owner, error)
                say(f"{work_of(request)}: try {attempt} of {TRIES} failed: {outcome.error}")
                if isinstance(error, TaskError):
                    break  # it would fail again
            if attempt < TRIES:
                await asyncio.sleep(poll_s)
        first = await _finish(spool, claim, outcome, poll_s, say)
    except (OSError, asyncio.CancelledError):
        spool.give_back(claim)
        raise
    seconds = time.monotonic() - started
    say(f"{work_of(request)}: {_summary(outcome)} in {seconds:.1f} s{'' if first else ', after another evaluator'}")


async def _finish(spool: Spool, claim: Claim, outcome: Outcome, poll_s: float, say: Callable[[str], None]) -> bool:
    """Gives the outcome; holds on to it through a full disk or a lost mount. Raises OSError after FINISH_TRIES."""
    for _ in range(FINISH_TRIES - 1):
        try:
            return spool.finish(claim, outcome)
        except OSError as error:
            say(f"{outcome.work}: the result cannot be written, trying on: {error}")
            await asyncio.sleep(poll_s)
    return spool.finish(claim, outcome)


async def answer(evaluator: Evaluator, request: AnyRequest) -> Result:
    """Asks `evaluator` what `request` says."""
    match request:
        case BaselineRequest():
            return await evaluator.baseline(request)
        case EvaluateRequest():
            return await evaluator.evaluate(request)
        case ProfileRequest():
            return await evaluator.profile(request)
        case VerifyRequest():
            return await evaluator.verify(request)
        case _:
            assert_never(request)


def run_server(
    directory: Path,
    evaluator: Evaluator,
    *,
    drain: bool = False,
    slots: Callable[[], Awaitable[int]] | None = None,
    lease_s: float = LEASE_S,
    poll_s: float = 1.0,
    name: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """`serve` as a whole process: SIGTERM and Ctrl-C give the present claims back. Closes `evaluator`.

    Returns an exit code: 0 when drained, 130 when stopped by a signal. Raises as `serve` does.
    """

    async def whole() -> None:
        serving = asyncio.current_task()
        assert serving is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        try:
            await serve(
                directory, evaluator, drain=drain, slots=slots, lease_s=lease_s, poll_s=poll_s, name=name, say=say
            )
        finally:
            await evaluator.close()

    try:
        asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("stopped; a request that was in work is given back")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> int:
    """The command: serves a spool with this machine's evaluator. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cudaforge evaluator", description="Evaluates what a spool folder asks for.")
    parser.add_argument("--spool", type=Path, required=True, metavar="DIR", help="the shared folder")
    parser.add_argument("--drain", action="store_true", help="stop when no request waits")
    parser.add_argument("--home", type=Path, help="where builds and baselines are cached (CUDAFORGE_HOME)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0")
    parser.add_argument("--name", default="", help="this evaluator's name in the folder (the host's)")
    parser.add_argument("--lease", type=float, default=LEASE_S, metavar="S", help="seconds of silence until it is dead")
    options = parser.parse_args(argv)
    if not 1 <= options.lease <= 86400:
        parser.error("--lease takes 1 to 86400 seconds")
    home = options.home or Path(os.environ.get("CUDAFORGE_HOME") or Path.home() / ".cudaforge")
    try:
        from cudaforge.engine.local import LocalEvaluator

        evaluator = LocalEvaluator(home, options.device)
        return run_server(
            options.spool,
            evaluator,
            drain=options.drain,
            slots=evaluator.slots,
            lease_s=options.lease,
            name=options.name,
            say=lambda line: print(time.strftime("%H:%M:%S"), line, flush=True),
        )
    except CudaForgeError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code


@contextmanager
def _alive(spool: Spool, owner: str, lease_s: float) -> Iterator[None]:
    """Keeps `owner`'s heartbeat fresh from a thread; takes it away at the end."""
    heartbeat = Heartbeat(lease_s=lease_s, host=socket.gethostname(), pid=os.getpid())
    over = threading.Event()

    def beat() -> None:
        while not over.wait(lease_s / 4):
            with suppress(OSError):  # the folder may be back for the next beat
                spool.beat(owner, heartbeat)

    spool.beat(owner, heartbeat)
    thread = threading.Thread(target=beat, name="spool heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            spool.leave(owner)


def _owner(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name or socket.gethostname())[:60]
    return f"{plain}-{secrets.token_hex(4)}"


def _summary(outcome: Outcome) -> str:
    match outcome.result:
        case None:
            return "no result"
        case Evaluation() as evaluation:
            return str(evaluation.verdict)
        case Verification() as verification:
            return str(verification.evaluation.verdict)
        case _:
            return "done"


if __name__ == "__main__":
    sys.exit(main())
