"""A candidate's process that is started before anybody knows for which kernel, by itself or under a tool (ncu).

Its cage is made at its start, so the kernel's package is copied to a place that it can read when there is a kernel. It
takes one kernel, and ends. It touches the device when it is told to, by somebody who holds it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from cudaforge.engine.builder import Built, make_readable
from cudaforge.engine.sandbox import LIMITS, Child, ChildDied, ChildError, ChildTimeout

START_S = 120.0


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
        self.child = Child(
            "candidate",
            read=(str(self.reads),),
            write=(str(writes),) if wrapper else (),
            limits=LIMITS,
            device=device,
            extra_env={**{name: str(path) for name, path in self._caches.items()}, **settings},
            wrapper=wrapper,
        )
        self._waking = True
        with contextlib.suppress(ChildDied):  # who uses it finds out
            self.child.post({"do": "wake", "device": ""})

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self.child.alive

    def settle(self, *, on_device: bool = False) -> None:
        """Waits until it has imported what it will need, so that nobody holds a device meanwhile; with `on_device`, for
        which the device must be held, until it has made its context there, too."""
        with contextlib.suppress(ChildError, ChildDied, ChildTimeout):
            self.child.started(START_S)
            if self._waking:
                self._waking = False
                self.child.answer(START_S)
            if on_device:
                self.child.ask({"do": "wake", "device": self.device}, START_S)

    def take(self, built: Built) -> Built:
        """Puts a kernel where the process can read it; returns the kernel as it finds it."""
        self.settle()
        package = self.package / built.package.name
        shutil.copytree(built.package, package)
        for name, path in self._caches.items():
            with contextlib.suppress(FileNotFoundError):
                shutil.copytree(built.caches[name], path, dirs_exist_ok=True)
        make_readable(self.reads)
        return Built(package, built.build, {name: str(path) for name, path in self._caches.items()}, built.settings)

    def close(self) -> None:
        """Ends the process and removes its folder. Idempotent."""
        self.child.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def new_folder(parent: Path) -> Path:
    """A fresh folder for one, so that the tool's command line can name a file in its `writes`."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="waiting-", dir=parent))
