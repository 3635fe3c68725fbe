"""What an operator decides: where the service listens, who may ask, and how much."""

from __future__ import annotations

import fnmatch
import ipaddress
from pathlib import Path

from pydantic import Field

from cudaforge.errors import UsageError
from cudaforge.jobs import Bounds
from cudaforge_profiling.types import Frozen


class Limits(Frozen):
    """The most that one request, run or client may take. Sizes in bytes."""

    body: int = Field(6 << 20, ge=1024)
    """A request's body."""
    source: int = Field(512 << 10, ge=1024)
    """A task's source, and each file of a kernel."""
    reply: int = Field(4 << 20, ge=1024)
    """A person's reply to a prompt."""
    rounds: int = Field(100, ge=1, le=1000)
    usd: float | None = Field(None, gt=0)
    """Of one run that asks a networked model; None for no limit. A run that names no budget gets this one."""
    seconds: float | None = Field(None, gt=0)
    """Likewise, of stages' wall time."""
    queue: Bounds = Bounds()
    streams: int = Field(500, ge=1)
    """Open event streams, of all clients."""
    send_s: float = Field(30.0, gt=0)
    """A stream whose client takes nothing for so long is closed; it can go on where it stopped."""
    heartbeat_s: float = Field(15.0, gt=0)


class Settings(Frozen):
    """All of it. `models` are patterns of what a run may name, `evaluators` the ones it may choose from."""

    home: Path
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    require_token: bool = False
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which clients may speak to a service that asks for no token."""
    models: tuple[str, ...] = ("manual:", "recorded:*", "openai:*")
    evaluators: tuple[str, ...] = ("local",)
    recordings: Path | None = None
    """Folder whose subfolders a run may name as `recorded:NAME`, beside the examples that ship with CudaForge."""
    limits: Limits = Limits()
    poll_s: float = Field(0.05, gt=0)
    """How often the service looks for new events while anybody listens."""

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def offers(self, model: str) -> bool:
        """Whether a run may name this model."""
        return any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)

    def recording(self, name: str) -> Path:
        """The folder behind `recorded:NAME`. Raises UsageError where there is none."""
        from cudaforge import wiring

        known = wiring.recordings(self.recordings)
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise UsageError(f"There is no recording {name!r} here.", f"There are: {names}.")
        return known[name]
