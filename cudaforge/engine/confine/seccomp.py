"""The filter of system calls: seccomp with classic BPF."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from cudaforge.engine.confine.linux import (
    ANY_NAMESPACE,
    CLONE_THREAD,
    JUDGED,
    MACHINES,
    NEVER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    STARTS,
    call,
    numbers_in,
)

X32 = 0x4000_0000
ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of classic BPF: load a word, jump on it, end."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_UNIX, AF_NETLINK = 1, 16
SIGNALS_BY = (8, 10, 15)
"""F_SETOWN, F_SETSIG and F_SETOWN_EX: what a descriptor has to say comes as a signal, a SIGCONT say."""

Code = list[tuple[int, int, int, int]]
"""Instructions: code, how many to skip if true and if false, operand."""


def _deny(number: int) -> Code:
    return [(RETURN, 0, 0, 0x0005_0000 | number)]


EPERM = _deny(errno.EPERM)
OK: Code = [(RETURN, 0, 0, ALLOW)]


def _load(argument: int) -> Code:
    """The lower word of an argument: all that the kernel reads of an int."""
    return [(LOAD, 0, 0, 16 + 8 * argument)]


def _when(test: int, operand: int, then: Code) -> Code:
    """`then`, which must end, where the loaded word passes the test."""
    return [(test, 0, len(then), operand), *then]


def _one_of(argument: int, *values: int) -> Code:
    """Allows the call where the argument is one of `values`."""
    return [*_load(argument), *(step for value in values for step in _when(EQUAL, value, OK)), *EPERM]


def _judgements(programs: bool, pid: int) -> dict[str, Code]:
    clone = [*_load(0), *_when(ANY_BIT, ANY_NAMESPACE, EPERM), *([] if programs else _when(ANY_BIT, CLONE_THREAD, OK))]
    undumpable = [*_load(1), *_when(EQUAL, 0, EPERM), *OK]
    judged = {
        "clone": [*clone, *(OK if programs else EPERM)],
        "clone3": _deny(errno.ENOSYS),  # its flags lie in memory, out of reach; libc then uses clone
        "personality": _one_of(0, 0, 0xFFFF_FFFF),
        "socket": _one_of(0, AF_UNIX, AF_NETLINK),
        "prctl": [*_load(0), *_when(EQUAL, PR_SET_DUMPABLE, undumpable)],
        "ioctl": [*_load(1), *_when(EQUAL, TIOCSTI, EPERM), *_when(EQUAL, TIOCLINUX, EPERM), *OK],
    }
    if not programs:
        judged["prctl"] += _when(EQUAL, PR_SET_PDEATHSIG, EPERM)
        signals = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
        judged |= dict.fromkeys(signals, _one_of(0, pid))
        judged["fcntl"] = [*_load(1), *(step for how in SIGNALS_BY for step in _when(EQUAL, how, EPERM)), *OK]
        judged |= dict.fromkeys(("prlimit64", "migrate_pages", "move_pages"), _one_of(0, 0, pid))
    judged["prctl"] += OK
    return judged


def filter_calls(programs: bool) -> str:
    """Refuses system calls, with EPERM and not death: what only asks goes on."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    refused = [*numbers_in(NEVER).values(), *([] if programs else numbers_in(STARTS).values())]
    judged = {numbers_in(JUDGED)[name]: code for name, code in _judgements(programs, os.getpid()).items()}
    code: Code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, MACHINES[machine]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if machine == "x86_64":
        code += _when(AT_LEAST, X32, EPERM)
    for number, then in (dict.fromkeys(refused, EPERM) | judged).items():
        code += _when(EQUAL, number, then)
    code += OK
    packed = b"".join(struct.pack("=HBBI", *step) for step in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    # Without SPEC_ALLOW, older kernels slow the whole process down once it has a filter, and with it what is timed.
    set_filter, spec_allow = 1, 4
    try:
        call("seccomp", set_filter, spec_allow, program)
    except OSError:
        call("seccomp", set_filter, 0, program)
    return "no programs" if not programs else "programs allowed"
