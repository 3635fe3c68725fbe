"""System calls by ctypes, and their numbers in the tables by which a cage judges them (seccomp.py)."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
from typing import Any

NEVER = """
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 pidfd_getfd:438:438 kcmp:312:272
perf_event_open:298:241 bpf:321:280 userfaultfd:323:282 keyctl:250:219 add_key:248:217 request_key:249:218
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 mount_setattr:442:442 open_tree:428:428
open_tree_attr:467:467 move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433
unshare:272:97 setns:308:268 init_module:175:105 finit_module:313:273 delete_module:176:106 kexec_load:246:104
kexec_file_load:320:294 reboot:169:142 swapon:167:224 swapoff:168:225 quotactl:179:60 quotactl_fd:443:443
acct:163:89 settimeofday:164:170 clock_settime:227:112 adjtimex:159:171 clock_adjtime:305:266 sethostname:170:161
setdomainname:171:162 open_by_handle_at:304:265 name_to_handle_at:303:264 io_uring_setup:425:425
io_uring_enter:426:426 io_uring_register:427:427 iopl:172: ioperm:173: modify_ldt:154: syslog:103:116
fanotify_init:300:262 lookup_dcookie:212:18 vhangup:153:58 process_madvise:440:440 process_mrelease:448:448
"""
"""Name and number on x86_64 and on aarch64: what reaches into other processes or into the kernel."""
STARTS = """
execve:59:221 execveat:322:281 fork:57: vfork:58: pidfd_open:434:434 pidfd_send_signal:424:424 timer_create:222:107
mq_notify:244:184 sched_setscheduler:144:119 sched_setparam:142:118 sched_setattr:314:274 setpriority:141:140
"""
"""What starts programs and processes, reaches them by descriptor, wakes a stopped one (a SIGCONT by a timer), or lets
threads stand there without running."""
JUDGED = """
clone:56:220 clone3:435:435 personality:135:92 socket:41:198 prctl:157:167 ioctl:16:29 kill:62:129 tkill:200:130
fcntl:72:25 tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 prlimit64:302:261 migrate_pages:256:238
move_pages:279:239
"""
"""What depends on its arguments."""
USED = """
seccomp:317:277 capset:126:91 landlock_create_ruleset:444:444 landlock_add_rule:445:445
landlock_restrict_self:446:446
"""
MACHINES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

NAMESPACES = {"mount": 0x0002_0000, "network": 0x4000_0000, "IPC": 0x0800_0000, "UTS": 0x0400_0000, "pid": 0x2000_0000}
CLONE_NEWUSER = 0x1000_0000
ANY_NAMESPACE = sum(NAMESPACES.values()) | CLONE_NEWUSER | 0x0200_0000
CLONE_THREAD = 0x0001_0000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The result; OSError where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2). OSError where it is refused."""
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def call(name: str, *arguments: Any) -> int:
    """A system call that libc does not wrap."""
    number = number_of(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: not known for {platform.machine()}")
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(ctypes.c_long(number), *wide), name)


@functools.cache
def numbers_in(table: str) -> dict[str, int]:
    """The numbers that a table gives for this machine."""
    column = 1 + list(MACHINES).index(platform.machine())
    rows = (word.split(":") for word in table.split())
    return {row[0]: int(row[column]) for row in rows if row[column]}


def number_of(name: str) -> int | None:
    """The number of a system call on this machine; None where it is not known."""
    if platform.machine() not in MACHINES:
        return None
    return next((n[name] for n in map(numbers_in, (NEVER, STARTS, JUDGED, USED)) if name in n), None)
