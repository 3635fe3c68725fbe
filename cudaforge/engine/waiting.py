"""A candidate's process that is started before anybody knows for which kernel, by itself or under a tool (ncu).

Its cage is made at its start, so the kernel's package is copied to a place that it can read when there is a kernel. It
takes one kernel, and ends. It touches the device when it is told to, by somebody who holds it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from cudaforge.engine.builder import Built, make_readable
from cudaforge.engine.sandbox import LIMITS, Child, ChildDied, ChildError, ChildTimeout

START_S = 120.0
STALE_S = 86400.0


class Waiting:
    """One such process. `folder` (new_folder) is its own: with a tool it may write in its `writes`; `close` removes
    it."""

    def __init__(self, folder: Path, device: str, wrapper: tuple[str, ...], settings: dict[str, str]) -> None:
        """Starts it. `wrapper` is the tool's command line or empty, `settings` those of every kernel's package
        (Built.settings). EvaluatorError where it cannot be started."""
        self.folder, self.device = folder, device
        self.reads = self.folder / "reads"
        self.package, writes = self.reads / "package", self.folder / "writes"
        self._caches = {"TORCH_EXTENSIONS_DIR": self.reads / "extensions", "TRITON_CACHE_DIR": self.reads / "triton"}
        for path in (self.package, writes, *self._caches.values()):
            path.mkdir(parents=True, exist_ok=True)
        make_readable(self.folder)
        try:
            self.child = Child(
                "candidate",
                read=(str(self.reads),),
                write=(str(writes),) if wrapper else (),
                limits=LIMITS,
                device=device,
                extra_env={**{name: str(path) for name, path in self._caches.items()}, **settings},
                wrapper=wrapper,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._waking = True
        with contextlib.suppress(ChildDied):  # who uses it finds out
            self.child.post({"do": "wake", "device": ""})

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self.child.alive

    def settle(self, *, on_device: bool = False) -> None:
        """Waits until it has imported what it will need, so that nobody holds a device meanwhile; with `on_device`, for
        which the device must be held, until it has made its context there, too, and computes. One that cannot is ended,
        so that no kernel is blamed for it."""
        try:
            self.child.started(START_S)
            if self._waking:
                self._waking = False
                self.child.answer(START_S)
            if on_device:
                self.child.ask({"do": "wake", "device": self.device}, START_S)
        except (ChildError, ChildDied, ChildTimeout):
            self.child.kill()

    def take(self, built: Built) -> Built:
        """Puts a kernel where the process can read it; returns the kernel as it finds it. OSError where it cannot be
        copied.

        The kernel's build may have written there, so a link stays a link: it leads to what its reader may see.
        """
        self.settle()
        package = self.package / built.package.name
        shutil.copytree(built.package, package, symlinks=True, ignore=_neither_file_nor_folder)
        for name, path in self._caches.items():
            if Path(built.caches[name]).is_dir():
                shutil.copytree(
                    built.caches[name], path, symlinks=True, ignore=_neither_file_nor_folder, dirs_exist_ok=True
                )
        make_readable(self.reads)
        return Built(package, built.build, {name: str(path) for name, path in self._caches.items()}, built.settings)

    def close(self) -> None:
        """Ends the process and removes its folder. Idempotent."""
        self.child.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _neither_file_nor_folder(folder: str, names: list[str]) -> list[str]:
    """What cannot be copied: pipes, sockets, devices."""
    places = {name: Path(folder, name) for name in names}
    return [name for name, path in places.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]


def clear(parent: Path) -> None:
    """Removes folders of processes that were killed with whoever had started them, a day ago or more."""
    for folder in parent.glob("waiting-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def new_folder(parent: Path) -> Path:
    """A fresh folder for one, so that the tool's command line can name a file in its `writes`."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="waiting-", dir=parent))
