"""User, capabilities and limits of a caged process."""

from __future__ import annotations

import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from cudaforge.engine.confine.cage import Cage, Layers
from cudaforge.engine.confine.linux import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_SECUREBITS,
    call,
    libc,
)
from cudaforge.engine.confine.readable import is_needed

SECURE_NOROOT = 0b11
"""The user id 0 brings no capabilities, and that is locked."""


def become(cage: Cage) -> str:
    """Root becomes a user that owns nothing but scratch and the `write` folders."""
    uid = cage.uid
    os.setgroups([])
    _try_as(
        uid,
        read=[sys.executable, *(p for p in sys.path if is_needed(p)), *_torch_files(), *cage.read, *cage.devices],
        through=[str(Path(folder).parent) for folder in cage.write],
    )
    for path in (cage.scratch, *cage.write):
        os.chown(path, uid, uid)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    return f"uid {uid}"


def _torch_files() -> list[str]:
    return [str(Path(entry, "torch", "__init__.py")) for entry in sys.path]


def _try_as(uid: int, read: Iterable[str], through: Iterable[str]) -> None:
    """OSError where user `uid` cannot read what root finds, or not pass through a folder: an interpreter in root's own
    folder, say."""
    wanted = [(path, os.R_OK) for path in read if os.access(path, os.F_OK)] + [(path, os.X_OK) for path in through]
    os.setegid(uid)
    os.seteuid(uid)
    try:
        for path, how in wanted:
            if not os.access(path, how, effective_ids=True):
                raise PermissionError(errno.EACCES, f"closed to user {uid}", path)
    finally:
        os.seteuid(0)
        os.setegid(0)


def bar_capabilities() -> None:
    """No program started later can have capabilities. Needs some itself; a normal user has none to lose."""
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_SECUREBITS, SECURE_NOROOT, 0, 0, 0)


def drop_capabilities() -> None:
    """This process has none from here on."""
    header, none = struct.pack("=Ii", 0x2008_0522, 0), bytes(24)
    call("capset", header, none)


def limit(cage: Cage, layers: Layers) -> None:
    """Sets the cage's hard limits; what this process may not have anyway stays as it is."""
    for name, value in cage.limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))
    layers.append("resource limits")
    if "NPROC" in cage.limits:
        layers.append("process limit" if os.geteuid() else "no process limit: runs as root")
