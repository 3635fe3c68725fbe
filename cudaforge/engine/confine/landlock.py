"""Landlock: the kernel's second opinion on files, sockets and signals."""

from __future__ import annotations

import contextlib
import os
import stat
import struct

from cudaforge.engine.confine.cage import PLAIN_DEVICES, Cage
from cudaforge.engine.confine.linux import call
from cudaforge.engine.confine.readable import source_checkout

LL_EXECUTE, LL_WRITE_FILE, LL_READ_FILE, LL_READ_DIR, LL_TRUNCATE, LL_IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
LL_OF_FILES = LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL
LL_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files by the version that brought the last of them."""
LL_TCP = 0b11
LL_SCOPES = 0b11
"""Abstract Unix sockets and signals of processes outside."""


def landlock(cage: Cage, roots: tuple[str, ...], private: bool) -> str:
    """The kernel's second opinion on files, and the only one where mounts are refused."""
    abi = call("landlock_create_ruleset", None, 0, 1)
    known = LL_ALL[max(version for version in LL_ALL if version <= abi)]
    attributes = struct.pack("=QQQ", known, LL_TCP, LL_SCOPES)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = call("landlock_create_ruleset", attributes, len(attributes), 0)
    look = LL_READ_FILE | LL_READ_DIR | (LL_EXECUTE if cage.programs else 0)
    change = known if cage.programs else known & ~LL_EXECUTE
    # Python lists the folders of its path. In a root of its own there is nothing else to list.
    listed = {"/"} if private else {str(checkout)} if (checkout := source_checkout()) else set()
    rules = dict.fromkeys(listed, LL_READ_DIR)
    rules |= dict.fromkeys([*roots, *cage.read, "/proc", "/sys"], look) | {"/dev": LL_READ_DIR}
    if cage.devices:
        named = "/proc" if private else f"/proc/{os.getpid()}/task"
        rules[named] = look | LL_WRITE_FILE | LL_TRUNCATE
    nodes = dict.fromkeys([*PLAIN_DEVICES, *cage.devices], LL_READ_FILE | LL_WRITE_FILE | LL_IOCTL)
    own_tmp = ["/tmp"] if private and cage.programs else []
    rules |= nodes | dict.fromkeys([cage.scratch, *cage.write, "/dev/shm", *own_tmp], change)
    try:
        for path, rights in rules.items():
            with contextlib.suppress(FileNotFoundError, PermissionError):  # nothing to allow
                _allow(ruleset, path, rights & known)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return f"version {abi}"


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights &= -1 if stat.S_ISDIR(os.fstat(fd).st_mode) else LL_OF_FILES
        below_path = 1
        call("landlock_add_rule", ruleset, below_path, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
