"""The process of `cudaforge serve`: uvicorn, and worker processes beside it that are started again when they die."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from cudaforge.errors import UsageError
from cudaforge_api.app import create_app
from cudaforge_api.settings import Settings

RESTART_S, RESTART_MOST_S = 1.0, 60.0
"""Before a dead worker is started again; doubles while they die young."""
YOUNG_S = 60.0
SHUTDOWN_S = 10
"""How long requests under way get after SIGTERM."""


class Server(uvicorn.Server):
    """Ends the event streams on SIGTERM and SIGINT: they would never end of themselves.

    uvicorn's own handler would raise the signal again once it has shut down, and so kill this process before its
    workers are drained.
    """

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was imported stays: without it, a full collection stops every stream for a tenth of a second
        # (benchmarks/service.py).
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT  # Ctrl-C twice
        self.should_exit = True
        self._on_exit()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{host}:{port} cannot be listened on: {reason}.", "Choose another --port.") from None


def serve(settings: Settings, listening: socket.socket, workers: int, worker_command: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT, with `workers` processes of `worker_command`, which are drained then.

    Raises StoreError and UsageError as create_app does.
    """
    app = create_app(settings)
    # A client that takes nothing: its connection goes, too, not only its stream. Accepted sockets inherit it.
    stalled_ms = round(1000 * settings.limits.send_s)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
    config = uvicorn.Config(
        app,
        log_level="warning",
        loop="uvloop",
        http="httptools",
        access_log=False,  # lines a client can fill a disk with
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=settings.limits.streams + 200,
        lifespan="on",
    )
    feed = app.state.service.feed
    server = Server(config, feed.close)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(server, listening, workers, worker_command))


async def _serve(server: Server, listening: socket.socket, workers: int, command: Sequence[str]) -> None:
    keeping = [asyncio.create_task(_keep(command)) for _ in range(workers)]
    try:
        await server.serve(sockets=[listening])
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _keep(command: Sequence[str]) -> None:
    """One worker process, started again whenever it ends. Cancelled, it drains the process and waits for it."""
    pause = RESTART_S
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        process = await asyncio.create_subprocess_exec(
            *command, "--parent", str(os.getpid()), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await process.wait()
            raise
        pause = RESTART_S if loop.time() - began > YOUNG_S else min(2 * pause, RESTART_MOST_S)
        print(f"A worker ended with {code}; another starts in {pause:g} s.", file=sys.stderr, flush=True)
        await asyncio.sleep(pause)
