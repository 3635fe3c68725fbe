"""Cages: where candidates, the user's task and compilers run. System calls by ctypes, no tool of the host is needed.

A fresh process with one thread enters, either right after a fork (`enter`) or on its way to another program:

    python -m cudaforge.engine.confine --cage JSON -- g++ --version

Every layer is tried by itself and named in the result; one that this machine refuses is named with the reason, and
the others still hold. What a layer does is said where it is built.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import errno
import functools
import json
import os
import platform
import pwd
import resource
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

CANDIDATE_UID, PROGRAMS_UID = 61_001, 61_002
"""Users (and groups) of no name that root becomes: candidates cannot reach what compilers and the task run as."""
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
NEEDED = ("cudaforge", "cudaforge_profiling", "torch", "tvm_ffi", "numpy", "triton", "pydantic", "typing_extensions.py")
"""What processes in a cage import, or what that imports."""
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store")


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


def enter(
    cage: Cage, *, pid_fd: int | None = None, parent: int | None = None, privileged: bool | None = None
) -> tuple[str, ...]:
    """Puts this process into `cage`; returns the layers in force and, as "no LAYER: why", the missing ones.

    With a pid namespace, what returns is a grandchild: the process that called stays outside, holds no descriptor,
    ends exactly as the grandchild does, and takes it along when it is killed. The grandchild's pid as the caller
    sees it is written to `pid_fd` as a line before it goes on. Without one, the calling process itself returns.

    `parent` is the pid of whoever forked: closes the gap in which it dies before PDEATHSIG is set (which, mind, the
    kernel sends when the *thread* that forked ends). `privileged=False` takes the way of a normal user even as root.
    """
    layers = Layers()
    was_root = os.geteuid() == 0
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _own_session()
    for path in (*cage.read, *cage.write, *cage.devices):
        Path(path).stat()
    in_user_namespace = _namespaces(layers, was_root if privileged is None else was_root and privileged)
    _die_with_parent(lambda: parent is None or os.getppid() == parent)
    layers.attempt("first to go when memory runs out", _first_to_go)

    orphaned = _split(pid_fd) if "own pid namespace" in layers else None
    if orphaned is None and pid_fd is not None:
        _tell_pid(pid_fd, os.getpid())
    roots = system_roots()
    private = False
    if "own mount namespace" in layers:
        private = layers.attempt("private file system", _private_root, cage, roots, layers)
    else:
        layers.append("no private file system: it needs a mount namespace")
    _settle(cage.scratch)

    _bar_capabilities()
    if was_root and in_user_namespace:
        layers.append("no own user: the user namespace knows root alone")
    elif was_root:
        layers.attempt("own user", _become, cage)
    layers.attempt("all capabilities dropped", _drop_capabilities)
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if orphaned is not None:
        _die_with_parent(orphaned)  # the kernel forgets the signal when the user changes
    layers.attempt("new privileges refused", _prctl, PR_SET_NO_NEW_PRIVS, 1)
    _limit(cage, layers)
    layers.attempt("Landlock", _landlock, cage, roots, private)
    layers.attempt("system call filter", _filter_calls, cage.programs)
    return tuple(layers)


@functools.cache
def probe(programs: bool = False) -> tuple[str, ...]:
    """The layers that `enter` puts in force on this machine: a throw-away child tries."""
    scratch = tempfile.mkdtemp(prefix="cudaforge-probe-")
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--report-fd", "1", "--cage"]
    env = {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "LANG")},
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [*command, Cage(scratch, programs=programs).to_json()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=scratch,
            env=env,
        )
        if done.returncode:
            return (f"no cage: {(done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]}",)
        return tuple(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return (f"no cage: {error}",)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


# -- what may be read ------------------------------------------------------------------------------------------


def system_roots() -> tuple[str, ...]:
    """What every cage may read: the system's programs and libraries, this interpreter, its packages, PATH, CUDA.

    Of a checkout that holds this package, the packages alone, so that its tests, history and results stay unseen. Of
    the import path, what this interpreter and the packages that are needed lie in: a user's project may be on it, too,
    as the folder of a script, as the working folder or by a .pth file.
    """
    listed = [os.environ.get(name, "").split(os.pathsep) for name in ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME")]
    checkout, homes = _checkout(), _homes()
    roots = [*SYSTEM_FOLDERS, sys.prefix, sys.base_prefix, str(Path(sys.executable).parent)]
    roots += [str(Path(__file__).parent.parent)] if checkout else []
    for entry in dict.fromkeys([*sys.path, *(path for paths in listed for path in paths)]):
        if not entry.startswith("/") or any(home.is_relative_to(entry) for home in homes):
            continue
        if entry in sys.path and not _is_needed(entry):
            continue
        if checkout and (Path(entry).is_relative_to(checkout) or checkout.is_relative_to(entry)):
            packages = (Path(entry, name) for name in ("cudaforge", "cudaforge_profiling"))
            roots += [str(package) for package in packages if os.access(package / "__init__.py", os.F_OK)]
        else:
            roots.append(entry)
    return tuple(root for root in dict.fromkeys(roots) if os.access(root, os.F_OK))


def _is_needed(entry: str) -> bool:
    """Whether an entry of the import path is the interpreter's or holds a package that a cage has use for."""
    folders = (sys.prefix, sys.base_prefix, *SYSTEM_FOLDERS)
    return any(Path(entry).is_relative_to(folder) for folder in folders) or any(
        os.access(Path(entry, name), os.F_OK) for name in NEEDED
    )


def _homes() -> list[Path]:
    """Folders that no search path may open as a whole, whatever somebody has put there."""
    homes = [os.environ.get("HOME", "/"), tempfile.gettempdir()]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    return [Path(home) for home in homes]


@functools.cache
def _checkout() -> Path | None:
    """The source checkout that this package lies in; None where it is installed among other packages."""
    folder = Path(__file__).resolve().parent.parent.parent
    installed = folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info"))
    return None if installed else folder


def _real(path: str, links: dict[str, str]) -> str:
    """`path` without symbolic links; those on the way are added to `links`, so that they can be made again."""
    todo, at = path.split("/"), "/"
    while todo:
        part = todo.pop(0)
        if part in ("", ".", ".."):
            at = str(Path(at).parent) if part == ".." else at
            continue
        here = f"{at.rstrip('/')}/{part}"
        try:
            target = os.readlink(here)  # noqa: PTH115 - hundreds of calls on the way into every cage
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            at = here
            continue
        if len(links) > 1000:
            raise OSError(errno.ELOOP, "too many symbolic links", path)
        links[here] = target
        at, todo = "/" if target.startswith("/") else at, target.split("/") + todo
    return at


def _outermost(paths: Iterable[str]) -> list[str]:
    """The paths that lie below none of the others."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path == other or path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept


# -- namespaces and processes ----------------------------------------------------------------------------------

NAMESPACES = {"mount": 0x0002_0000, "network": 0x4000_0000, "IPC": 0x0800_0000, "UTS": 0x0400_0000, "pid": 0x2000_0000}
CLONE_NEWUSER = 0x1000_0000
ANY_NAMESPACE = sum(NAMESPACES.values()) | CLONE_NEWUSER | 0x0200_0000
CLONE_THREAD = 0x0001_0000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _call(name: str, *arguments: Any) -> int:
    """A system call that libc does not wrap."""
    number = _number(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: not known for {platform.machine()}")
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *wide), name)


def _namespaces(layers: Layers, privileged: bool) -> bool:
    """Leaves the host's namespaces one by one; returns whether there is a user namespace, which root need not have."""
    owned = privileged and _libc.unshare(NAMESPACES["UTS"]) == 0
    in_user_namespace = not owned and layers.attempt("user namespace", _user_namespace)
    for name, flag in NAMESPACES.items():
        layers.attempt(f"own {name} namespace", _unshare, flag)
    return in_user_namespace


def _unshare(flag: int) -> None:
    _check(_libc.unshare(flag), "unshare")


def _user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(text)


def _own_session() -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()


def _die_with_parent(alive: Callable[[], bool]) -> None:
    """SIGKILL when the parent ends, and at once where it has ended before that was said."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not alive():
        os._exit(1)


def _first_to_go() -> None:
    score = Path("/proc/self/oom_score_adj")
    if score.read_text().strip() != "1000":
        score.write_text("1000")


def _tell_pid(pid_fd: int, pid: int) -> None:
    os.write(pid_fd, b"%d\n" % pid)
    os.close(pid_fd)


def _split(pid_fd: int | None) -> Callable[[], bool]:
    """Forks into the new pid namespace; returns, in the process that goes on, what says whether the reaper lives.

    The namespace's first process does nothing: the kernel shields it from signals, and a candidate in its place
    could not be seen to abort. The caller becomes the reaper: it waits, and ends as the caged process did.
    """
    ours, reapers = os.pipe()  # only the reaper holds the second end: when that hangs up, the reaper is gone
    reader = select.poll()
    reader.register(ours, 0)

    def alive() -> bool:
        return not reader.poll(0)

    first = os.fork()
    if first == 0:
        os.close(reapers)
        _be_first(alive)
    caged = os.fork()
    if caged:
        _reap(first, caged, reapers, pid_fd)
    os.close(reapers)
    if os.read(ours, 1) != b"g":
        os._exit(1)
    _die_with_parent(alive)
    if pid_fd is not None:
        os.close(pid_fd)
    os.setsid()  # a signal to the own group must not reach the reaper
    return alive


def _be_first(alive: Callable[[], bool]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then buries the orphans by itself
        _prctl(PR_SET_DUMPABLE, 0)
        _die_with_parent(alive)
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _reap(first: int, caged: int, keep: int, pid_fd: int | None) -> NoReturn:
    """Waits for the caged process, ends whatever it left behind, and ends in the same way.

    It holds no descriptor but `keep`: who listens to the caged process must see its end.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if pid_fd is not None:
            _tell_pid(pid_fd, caged)
        os.write(keep, b"g")
        os.closerange(0, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
        _, status = os.waitpid(caged, 0)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        if not os.WIFSIGNALED(status):
            os._exit(os.WEXITSTATUS(status))
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    finally:
        os._exit(1)


def _settle(scratch: str) -> None:
    """Makes scratch this process's home; the own user has no name, and some libraries ask for one."""
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, LOGNAME="cudaforge", USER="cudaforge")
    tempfile.tempdir = None  # a zygote may have asked before


# -- file system -----------------------------------------------------------------------------------------------

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
    _check(_libc.mount(source_, target_, kind_, ctypes.c_ulong(flags), data_), f"mount {source}")


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
        _call("mount_setattr", AT_FDCWD, os.fsencode(target), recursive, attributes, len(attributes))
        return
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        point = Path(fields[4].encode().decode("unicode_escape"))
        if point == target or (below and point.is_relative_to(target)):
            # What a mount forbids already must be repeated: a user namespace may not take it back.
            kept = sum(MOUNT_OPTIONS.get(option, 0) for option in fields[5].split(","))
            _mount("none", point, None, MS_REMOUNT | MS_BIND | kept | flags)


def _private_root(cage: Cage, roots: tuple[str, ...], layers: Layers) -> str:
    """A root of its own that holds what the cage may reach and nothing else: the rest of the host has no name."""
    links: dict[str, str] = {}
    read = _outermost(_real(path, links) for path in (*roots, *cage.read, "/sys"))
    write = [_real(path, links) for path in cage.write]
    scratch = _real(cage.scratch, links)
    devices = [path for path in PLAIN_DEVICES if Path(path).exists()] + [_real(p, links) for p in cage.devices]
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
        _call("pivot_root", b".", b".")  # the old root now lies on top of the new one
    except OSError:
        _libc.umount2(os.fsencode(base), MNT_DETACH)
        raise
    _check(_libc.umount2(b".", MNT_DETACH), "umount2")
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


# -- user and capabilities -------------------------------------------------------------------------------------

SECURE_NOROOT = 0b11
"""The user id 0 brings no capabilities, and that is locked."""


def _become(cage: Cage) -> str:
    """Root becomes a user that owns nothing but scratch and the `write` folders."""
    uid = cage.uid
    os.setgroups([])
    _try_as(
        uid,
        read=[sys.executable, *(p for p in sys.path if _is_needed(p)), *_torch_files(), *cage.read, *cage.devices],
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


def _bar_capabilities() -> None:
    """No program started later can have capabilities. Needs some itself; a normal user has none to lose."""
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_SET_SECUREBITS, SECURE_NOROOT, 0, 0, 0)


def _drop_capabilities() -> None:
    header, none = struct.pack("=Ii", 0x2008_0522, 0), bytes(24)
    _call("capset", header, none)


# -- limits ----------------------------------------------------------------------------------------------------


def _limit(cage: Cage, layers: Layers) -> None:
    for name, value in cage.limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))
    layers.append("resource limits")
    if "NPROC" in cage.limits:
        layers.append("process limit" if os.geteuid() else "no process limit: runs as root")


# -- Landlock --------------------------------------------------------------------------------------------------

LL_EXECUTE, LL_WRITE_FILE, LL_READ_FILE, LL_READ_DIR, LL_TRUNCATE, LL_IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
LL_OF_FILES = LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL
LL_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights on files by the version that brought the last of them."""
LL_TCP = 0b11
LL_SCOPES = 0b11
"""Abstract Unix sockets and signals of processes outside."""


def _landlock(cage: Cage, roots: tuple[str, ...], private: bool) -> str:
    """The kernel's second opinion on files, and the only one where mounts are refused."""
    abi = _call("landlock_create_ruleset", None, 0, 1)
    known = LL_ALL[max(version for version in LL_ALL if version <= abi)]
    attributes = struct.pack("=QQQ", known, LL_TCP, LL_SCOPES)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _call("landlock_create_ruleset", attributes, len(attributes), 0)
    look = LL_READ_FILE | LL_READ_DIR | (LL_EXECUTE if cage.programs else 0)
    change = known if cage.programs else known & ~LL_EXECUTE
    # Python lists the folders of its path. In a root of its own there is nothing else to list.
    listed = {"/"} if private else {str(checkout)} if (checkout := _checkout()) else set()
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
        _call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return f"version {abi}"


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights &= -1 if stat.S_ISDIR(os.fstat(fd).st_mode) else LL_OF_FILES
        below_path = 1
        _call("landlock_add_rule", ruleset, below_path, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


# -- system calls ----------------------------------------------------------------------------------------------

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
execve:59:221 execveat:322:281 fork:57: vfork:58: pidfd_open:434:434 pidfd_send_signal:424:424
"""
"""What starts programs and processes, or reaches them by descriptor."""
JUDGED = """
clone:56:220 clone3:435:435 personality:135:92 socket:41:198 prctl:157:167 ioctl:16:29 kill:62:129 tkill:200:130
tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 prlimit64:302:261 migrate_pages:256:238
move_pages:279:239
"""
"""What depends on its arguments."""
USED = """
seccomp:317:277 capset:126:91 landlock_create_ruleset:444:444 landlock_add_rule:445:445
landlock_restrict_self:446:446
"""
MACHINES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
X32 = 0x4000_0000
ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of classic BPF: load a word, jump on it, end."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_UNIX, AF_NETLINK = 1, 16

Code = list[tuple[int, int, int, int]]
"""Instructions: code, how many to skip if true and if false, operand."""


@functools.cache
def _numbers(table: str) -> dict[str, int]:
    column = 1 + list(MACHINES).index(platform.machine())
    rows = (word.split(":") for word in table.split())
    return {row[0]: int(row[column]) for row in rows if row[column]}


def _number(name: str) -> int | None:
    if platform.machine() not in MACHINES:
        return None
    return next((n[name] for n in map(_numbers, (NEVER, STARTS, JUDGED, USED)) if name in n), None)


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
        judged |= dict.fromkeys(("prlimit64", "migrate_pages", "move_pages"), _one_of(0, 0, pid))
    judged["prctl"] += OK
    return judged


def _filter_calls(programs: bool) -> str:
    """Refuses system calls, with EPERM and not death: what only asks goes on."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    refused = [*_numbers(NEVER).values(), *([] if programs else _numbers(STARTS).values())]
    judged = {_numbers(JUDGED)[name]: code for name, code in _judgements(programs, os.getpid()).items()}
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
        _call("seccomp", set_filter, spec_allow, program)
    except OSError:
        _call("seccomp", set_filter, 0, program)
    return "no programs" if not programs else "programs allowed"


# -- command line ----------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Enters a cage and becomes the given program, or reports the layers and ends."""
    parser = argparse.ArgumentParser(prog="cudaforge.engine.confine", description=main.__doc__)
    parser.add_argument("--cage", required=True, type=Cage.from_json)
    parser.add_argument("--report-fd", type=int, help="the layers go there, as a JSON list")
    parser.add_argument("--pid-fd", type=int, help="the caged process's pid goes there")
    parser.add_argument("--parent", type=int, help="pid of whoever starts this: nothing runs once that has ended")
    parser.add_argument("--unprivileged", action="store_true", help="what a normal user gets, also for root")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(arguments)
    if options.command and not options.cage.programs:
        parser.error("a cage without programs cannot become one")
    privileged = False if options.unprivileged else None
    layers = enter(options.cage, pid_fd=options.pid_fd, parent=options.parent, privileged=privileged)
    if options.report_fd is not None:
        os.write(options.report_fd, json.dumps(layers).encode() + b"\n")
        if options.report_fd > sys.stderr.fileno():
            os.close(options.report_fd)
    if options.command:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores them, and programs would inherit that
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        try:
            os.execvp(options.command[0], options.command)
        except OSError as error:
            sys.exit(f"{options.command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
