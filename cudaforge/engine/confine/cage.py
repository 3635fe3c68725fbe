"""What a process may reach, the layers that keep it there, and what cages of this machine share."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

CANDIDATE_UID, PROGRAMS_UID = 61_001, 61_002
"""Users (and groups) of no name that root becomes: candidates cannot reach what compilers and the task run as."""
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclasses.dataclass(frozen=True)
class Cage:
    """What a process may reach. Paths are absolute and exist; they are found at the same place inside.

    Never name a path below a folder that a cage may write: what lies there may have become a link to anything.
    """

    scratch: str
    """A private folder: HOME, TMPDIR and working folder. A capped tmpfs covers it, so it starts and ends empty."""
    read: tuple[str, ...] = ()
    """Folders and files beside `system_roots()`."""
    write: tuple[str, ...] = ()
    """Folders of the host. They themselves are given to the cage's user, their contents are not: see `hand_over`."""
    devices: tuple[str, ...] = ()
    """Device nodes beside PLAIN_DEVICES: see `gpu_nodes`. With any, /proc/PID may be written: CUDA names its threads
    there, and where it cannot, refuses to start (error 304)."""
    programs: bool = False
    """May start programs and processes, signal them, and use a (capped) /tmp."""
    scratch_bytes: int = 1 << 30
    """Cap of scratch; of /dev/shm and, with `programs`, of /tmp, too."""
    limits: dict[str, int] = dataclasses.field(default_factory=dict)
    """Hard limits by name: {"NPROC": 256}. NPROC counts all processes of the cage's user on this machine."""

    def __post_init__(self) -> None:
        for path in (self.scratch, *self.read, *self.write, *self.devices):
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is not an absolute path")
        for path in (*self.read, *self.write):
            if Path(path).is_relative_to(self.scratch):
                raise ValueError(f"{path} lies in scratch, which a cage finds empty")

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Cage:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**fields)

    @property
    def uid(self) -> int:
        """The user that root becomes."""
        return PROGRAMS_UID if self.programs else CANDIDATE_UID


class Layers(list[str]):
    """The layers so far."""

    def attempt(self, name: str, action: Callable[..., str | None], *arguments: Any) -> bool:
        """Adds `name` and what `action` says about it; "no NAME: why" where it raises OSError."""
        try:
            detail = action(*arguments)
        except OSError as error:
            why = error.strerror or str(error)
            self.append(f"no {name}: {error.filename}: {why}" if error.filename else f"no {name}: {why}")
            return False
        self.append(f"{name} ({detail})" if detail else name)
        return True


def missing(layers: Iterable[str]) -> tuple[str, ...]:
    """The layers that are not in force."""
    return tuple(layer for layer in layers if layer.startswith("no "))


def hand_over(folder: str, programs: bool) -> None:
    """Gives a folder and all in it to the user of cages with or without `programs`. Only root can, and needs to."""
    uid = PROGRAMS_UID if programs else CANDIDATE_UID
    if os.geteuid() == 0:
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)


def gpu_nodes(indices: Iterable[int] | None = None) -> tuple[str, ...]:
    """The NVIDIA device nodes of this machine, of all GPUs or of those with these minor numbers."""
    wanted = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps/*", "nvidia-caps-imex-channels/*", "dxg"]
    wanted += ["nvidia[0-9]*"] if indices is None else [f"nvidia{index}" for index in indices]
    found = sorted(str(node) for name in wanted for node in Path("/dev").glob(name))
    # The node that configures MIG is for root's eyes only; nobody else can open it.
    return tuple(node for node in found if Path(node).stat().st_mode & stat.S_IROTH)
