"""CUDAFORGE_HOME: one folder with everything that is remembered. Paths only; importing this is cheap.

cudaforge.db      the record (SqliteStore)
checkpoints.db    LangGraph's own, a separate file because a foreign write lock can kill a run
artifacts/ab/...  bytes under their SHA-256
cache/            build cache and baselines, the engine's; safe to delete
tasks/            task files written from live modules; runs hold their own copy
kernels/          packages of kernels that were loaded into Python; safe to delete
workers/          a lock file for each live worker process
backups/          copies of cudaforge.db, made before its schema changes
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cudaforge.errors import StoreError


def home_dir() -> Path:
    """CUDAFORGE_HOME where it is set and not empty, else ~/.cudaforge; absolute. Nothing is created."""
    chosen = os.environ.get("CUDAFORGE_HOME", "").strip()
    return Path(chosen or "~/.cudaforge").expanduser().absolute()


@dataclass(frozen=True)
class Home:
    """The paths inside one home."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "cudaforge.db"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def build_cache(self) -> Path:
        return self.root / "cache" / "build"

    @property
    def workers(self) -> Path:
        """Lock files of the processes that take jobs from the queue."""
        return self.root / "workers"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def lock(self) -> Path:
        """Held while the schema is made or changed, so that two processes never do it at once."""
        return self.root / "cudaforge.lock"

    def create(self) -> None:
        """Makes the folder, readable by its owner alone: prompts and sources may be confidential."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"The home {self.root} cannot be made: {error.strerror or error}.",
                "Set CUDAFORGE_HOME to a folder that you can write to.",
            ) from error
