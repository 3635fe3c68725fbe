"""A root file system that holds what a cage may reach and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from pathlib import Path

from cudaforge.engine.confine.cage import PLAIN_DEVICES, Cage, Layers
from cudaforge.engine.confine.linux import call, check, libc
from cudaforge.engine.confine.readable import outermost, real

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 32, 4096, 16384, 1 << 18, 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_OPTIONS = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [os.fsencode(text) if text is not None else None for text in (source, str(target), kind, data)]
    source_, target_, kind_, data_ = encoded
    check(libc.mount(source_, target_, kind_, ctypes.c_ulong(flags), data_), f"mount {source}")


def _bind(path: str, target: Path) -> None:
    _mount_point(path, target)
    _mount(path, target, None, MS_BIND | MS_REC)


def _mount_point(path: str, target: Path) -> None:
    """Makes what `path` can be mounted on: an empty folder or file, with empty folders above."""
    if Path(path).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _restrict(target: Path, flags: int, *, below: bool = True) -> None:
    """Adds `flags` (the first four MS_ constants, which mount_setattr shares) to a mount and those below it."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    recursive = AT_RECURSIVE if below else 0
    with contextlib.suppress(OSError):  # Linux before 5.12; a container's filter that does not know the call
        call("mount_setattr", AT_FDCWD, os.fsencode(target), recursive, attributes, len(attributes))
        return
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        point = Path(fields[4].encode().decode("unicode_escape"))
        if point == target or (below and point.is_relative_to(target)):
            # What a mount forbids already must be repeated: a user namespace may not take it back.
            kept = sum(MOUNT_OPTIONS.get(option, 0) for option in fields[5].split(","))
            _mount("none", point, None, MS_REMOUNT | MS_BIND | kept | flags)


def private_root(cage: Cage, roots: tuple[str, ...], layers: Layers) -> str:
    """A root of its own that holds what the cage may reach and nothing else: the rest of the host has no name."""
    links: dict[str, str] = {}
    read = outermost(real(path, links) for path in (*roots, *cage.read, "/sys"))
    write = [real(path, links) for path in cage.write]
    scratch = real(cage.scratch, links)
    devices = [path for path in PLAIN_DEVICES if Path(path).exists()] + [real(p, links) for p in cage.devices]
    for device in devices:
        if not stat.S_ISCHR(Path(device).stat().st_mode):
            raise OSError(errno.EINVAL, "not a character device", device)

    _mount("none", Path("/"), None, MS_REC | MS_PRIVATE)  # nothing below may be seen by the host
    base = Path(scratch)
    _mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    try:
        size = f"size={cage.scratch_bytes},nr_inodes={1 << 18}"
        if cage.programs:
            _at(base, "/tmp").mkdir()
            _mount("tmpfs", _at(base, "/tmp"), "tmpfs", MS_NOSUID | MS_NODEV, f"{size},mode=1777")
        _lay_out(base, links, read, [*write, scratch])
        for path in write:
            _bind(path, _at(base, path))
            _restrict(_at(base, path), MS_NOSUID | MS_NODEV)
        _mount_devices(base, devices, size)
        _mount("tmpfs", _at(base, scratch), "tmpfs", MS_NOSUID | MS_NODEV, f"{size},mode=700")
        proc = _at(base, "/proc")
        if not layers.attempt("own /proc", _mount, "proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC):
            _bind("/proc", proc)
        _close_proc(proc, but_processes=bool(cage.devices))
        _restrict(base, MS_RDONLY, below=False)
        os.chdir(base)
        call("pivot_root", b".", b".")  # the old root now lies on top of the new one
    except OSError:
        libc.umount2(os.fsencode(base), MNT_DETACH)
        raise
    check(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")
    return f"scratch capped at {cage.scratch_bytes >> 20} MiB"


def _at(base: Path, path: str) -> Path:
    return base / path.lstrip("/")


def _lay_out(base: Path, links: dict[str, str], read: list[str], writable: list[str]) -> None:
    """Links, what may be read, and points to mount the rest on."""
    for link, target in links.items():
        _at(base, link).parent.mkdir(parents=True, exist_ok=True)
        _at(base, link).symlink_to(target)
    for path in read:
        _bind(path, _at(base, path))
        _restrict(_at(base, path), MS_RDONLY | MS_NOSUID | MS_NODEV)
    for folder in ("/tmp", "/run", "/proc", "/dev", *writable):
        _at(base, folder).mkdir(parents=True, exist_ok=True)


def _close_proc(proc: Path, *, but_processes: bool) -> None:
    """Makes /proc read-only: the user id 0 may write /proc/sys without any capability."""
    entries = [entry for entry in os.scandir(proc) if not entry.is_symlink()] if but_processes else []
    for entry in entries:
        if not entry.name.isdigit() and entry.stat().st_mode & (stat.S_IFDIR | 0o222):
            _mount(entry.path, Path(entry.path), None, MS_BIND | MS_REC)
            _restrict(Path(entry.path), MS_RDONLY)
    if not but_processes:
        _restrict(proc, MS_RDONLY)


def _mount_devices(base: Path, devices: list[str], size: str) -> None:
    dev = _at(base, "/dev")
    _mount("tmpfs", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755")
    for node in devices:
        _bind(node, _at(base, node))
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        (dev / name).symlink_to(f"/proc/self/fd{target}")
    (dev / "shm").mkdir()
    _mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, f"{size},mode=1777")
    _restrict(dev, MS_RDONLY, below=False)
