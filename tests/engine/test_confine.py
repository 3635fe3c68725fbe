"""Cages: what a caged process can reach, what it cannot, and that missing layers are named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cudaforge.engine.confine import Cage, gpu_nodes, missing, probe, system_roots

CHECKOUT = Path(__file__).parent.parent.parent
SECRET = "the expected output"

FORK = """
import os, sys
from cudaforge.engine.confine import Cage, enter
cage, options, code = Cage.from_json(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
pid = os.fork()
if pid == 0:
    layers = enter(cage, parent=os.getppid(), **options)
    exec(code)
    sys.stdout.flush()
    os._exit(0)
_, status = os.waitpid(pid, 0)
print("status", status)
"""
"""What a zygote does: forks, enters, goes on."""


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_HOME")}
    path = os.pathsep.join(p for p in sys.path if p and Path(p).is_dir())
    return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def start(cage: Cage, *command: str, options: tuple[str, ...] = (), python: str = sys.executable) -> list[str]:
    """The command that enters `cage` and becomes `command`."""
    return [python, "-m", "cudaforge.engine.confine", *options, "--cage", cage.to_json(), "--", *command]


def run(command: list[str], cwd: str, **extra_env: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(), **extra_env}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=env)


def python(cage: Cage, code: str, *options: str) -> str:
    """What `code` prints in a fresh interpreter in the cage."""
    done = run(start(cage, sys.executable, "-c", code, options=options), cage.scratch)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def forked(cage: Cage, code: str, options: str = "{}") -> str:
    """What `code` prints in a forked child in the cage, and how the parent saw the child end."""
    done = run([sys.executable, "-c", FORK, cage.to_json(), options, code], "/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ended(output: str) -> int:
    """The wait status that `forked` saw."""
    return int(output.rpartition("status ")[2])


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def needs(layer: str, programs: bool = False) -> None:
    """Skips where this machine refuses a layer, with its reason; fails where the probe does not know the layer."""
    found = [text for text in probe(programs) if text.removeprefix("no ").startswith(layer)]
    assert found, f"{layer} is not among {probe(programs)}"
    if found[0].startswith("no "):
        pytest.skip(found[0])


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return str(folder)


@pytest.fixture(params=["as we are", "as a normal user"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Both ways into a cage; for a normal user they are the same."""
    if request.param == "as a normal user" and os.geteuid() == 0:
        return ("--unprivileged",)
    return ()


def test_a_cage_travels_as_json(scratch: str) -> None:
    cage = Cage(scratch, read=("/a",), write=("/b", "/c"), devices=("/dev/x",), programs=True, limits={"NPROC": 5})
    assert Cage.from_json(cage.to_json()) == cage


def test_a_cage_refuses_paths_that_mean_nothing_inside(scratch: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        Cage("scratch")
    with pytest.raises(ValueError, match="scratch"):
        Cage(scratch, read=(f"{scratch}/input",))


def test_the_probe_names_every_layer_once() -> None:
    for programs in (False, True):
        layers = probe(programs)
        wanted = ["own mount namespace", "own network namespace", "own IPC namespace", "own UTS namespace"]
        wanted += ["own pid namespace", "private file system", "all capabilities dropped", "new privileges refused"]
        wanted += ["Landlock", "system call filter", "resource limits", "first to go when memory runs out"]
        wanted += ["own user"] if os.geteuid() == 0 else ["user namespace"]
        for name in wanted:
            assert sum(text.removeprefix("no ").startswith(name) for text in layers) == 1, (name, layers)
        assert all(": " in text for text in missing(layers)), "a missing layer says why"


def test_files_elsewhere_cannot_be_read(scratch: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Nor the home folder, should PATH name all of it, nor the checkout that this package runs from."""
    needs("private file system", programs=True)
    secret, home = tmp_path / "secret", tmp_path / "home"
    home.mkdir()
    for path in (secret, home / ".netrc"):
        path.write_text(SECRET)
    code = """
import sys
for path in sys.argv[1:]:
    try:
        print(open(path).read(10))
    except OSError as error:
        print(type(error).__name__)
"""
    paths = (str(secret), str(home / ".netrc"), str(CHECKOUT / "tests" / "conftest.py"))
    path = f"{os.environ['PATH']}:{home}"

    def seen(cage: Cage) -> list[str]:
        command = start(cage, sys.executable, "-c", code, *paths, options=options)
        return run(command, scratch, HOME=str(home), PATH=path).stdout.splitlines()

    assert seen(Cage(scratch, programs=True)) == ["FileNotFoundError"] * 3
    assert seen(Cage(scratch, read=(str(secret),), programs=True))[0] == SECRET[:10]


def test_only_scratch_and_the_write_folders_can_be_written(
    scratch: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    needs("private file system", programs=True)
    given, shown = tmp_path / "given", tmp_path / "shown"
    given.mkdir()
    shown.mkdir()
    cage = Cage(scratch, read=(str(shown),), write=(str(given),), programs=True)
    places = [scratch, str(given), "/dev/shm", "/tmp", str(shown), "/", "/etc", "/run", "/dev", "/proc"]
    places += [sys.prefix, str(CHECKOUT / "cudaforge")]
    code = f"""
import os
for folder in {[*places, str(tmp_path)]!r}:
    try:
        open(folder + "/new", "w").write("x")
        if folder != {str(tmp_path)!r}:  # may be a folder of the cage's own /tmp
            print(folder)
    except OSError:
        pass
print(os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"])
"""
    seen = python(cage, code, *options).splitlines()
    assert seen == [*places[:4], f"{scratch} {scratch} {scratch}"]
    assert (given / "new").read_text() == "x" and not (tmp_path / "new").exists()
    assert not list(Path(scratch).iterdir()), "scratch is gone with the cage"
    assert not any(scratch in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_a_candidate_cannot_write_to_tmp(scratch: str) -> None:
    needs("private file system")
    assert "OSError" in forked(
        Cage(scratch), "try:\n    open('/tmp/new', 'w')\nexcept OSError:\n    print('OSError')\nopen('new', 'w')"
    )


def test_scratch_and_shared_memory_are_capped(scratch: str, options: tuple[str, ...]) -> None:
    needs("private file system", programs=True)
    cage = Cage(scratch, programs=True, scratch_bytes=4 << 20)
    code = """
for folder in (".", "/dev/shm", "/tmp"):
    try:
        open(folder + "/big", "wb").write(bytes(5 << 20))
    except OSError as error:
        print(error.strerror)
"""
    assert python(cage, code, *options).splitlines() == ["No space left on device"] * 3


def test_torch_works_inside(scratch: str) -> None:
    code = "import torch; print(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum().item())"
    assert python(Cage(scratch, programs=True), code) == "262144.0"


def test_there_is_no_network(scratch: str, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        code = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 5)
    print("connected")
except OSError as error:
    print(type(error).__name__)
socket.socketpair()
"""
        assert python(Cage(scratch, programs=True), code, *options) == "PermissionError"
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_socket_on_the_host_cannot_be_reached(scratch: str) -> None:
    needs("own network namespace")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0cudaforge-test-confine")
        server.listen()
        code = "import socket; print(socket.socket(socket.AF_UNIX).connect_ex('\\0cudaforge-test-confine') != 0)"
        assert forked(Cage(scratch), code).startswith("True")


def test_the_parent_cannot_be_seen_or_signalled(scratch: str, options: tuple[str, ...]) -> None:
    needs("own pid namespace", programs=True)
    code = f"""
import os
print(os.getppid(), os.path.exists("/proc/{os.getpid()}/environ"))
for pid in ({os.getpid()}, os.getppid() or {os.getppid()}):
    try:
        os.kill(pid, 9)
        print("killed")
    except OSError as error:
        print(type(error).__name__)
"""
    assert python(Cage(scratch, programs=True), code, *options).split() == [
        "0",
        "False",
        "ProcessLookupError",
        "ProcessLookupError",
    ]


def test_a_candidate_can_signal_itself_alone(scratch: str) -> None:
    needs("system call filter")
    code = """
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
for send in (lambda: os.kill(1, 0), lambda: os.kill(0, 0), lambda: os.kill(-1, 9), lambda: os.pidfd_open(1)):
    try:
        send()
        print("sent")
    except PermissionError:
        print("refused")
"""
    assert forked(Cage(scratch), code).split() == ["heard"] * 2 + ["refused"] * 4 + ["status", "0"]


def test_a_candidate_has_nothing_that_wakes_it_while_it_is_stopped(scratch: str) -> None:
    """A timer or a descriptor could send a SIGCONT of its own, whoever has stopped it."""
    needs("system call filter")
    code = """
import ctypes, fcntl, os, socket
libc = ctypes.CDLL(None, use_errno=True)
timer = ctypes.c_void_p()
print(libc.timer_create(1, None, ctypes.byref(timer)), os.strerror(ctypes.get_errno()))
one, _ = socket.socketpair()
for command, value in ((fcntl.F_SETOWN, os.getpid()), (10, 18), (fcntl.F_GETFD, 0)):
    try:
        fcntl.fcntl(one, command, value)
        print("done")
    except PermissionError:
        print("refused")
for call in (lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)), lambda: os.nice(5)):
    try:
        call()
        print("done")
    except PermissionError:
        print("refused")
"""
    seen = forked(Cage(scratch), code).splitlines()
    assert seen[0] == "-1 Operation not permitted"
    assert seen[1:] == ["refused", "refused", "done", "refused", "refused", "status 0"]


def test_devices_are_the_listed_ones(scratch: str, options: tuple[str, ...]) -> None:
    needs("private file system", programs=True)
    code = """
import os, stat
from pathlib import Path
for path in Path("/dev").rglob("*"):
    if not path.is_symlink():
        mode = path.stat().st_mode
        print(path.name, "char" if stat.S_ISCHR(mode) else "block" if stat.S_ISBLK(mode) else "folder")
open("/dev/null", "w").write("x"), open("/dev/urandom", "rb").read(1)
"""
    seen = dict(line.split() for line in python(Cage(scratch, programs=True), code, *options).splitlines())
    assert seen == {**dict.fromkeys(("null", "zero", "full", "random", "urandom"), "char"), "shm": "folder"}
    nodes = gpu_nodes()
    assert all(stat.S_ISCHR(Path(node).stat().st_mode) for node in nodes)
    assert set(gpu_nodes([])) <= set(nodes)


def test_with_devices_the_own_threads_have_names_and_the_rest_of_proc_stays_shut(
    scratch: str, options: tuple[str, ...]
) -> None:
    """The CUDA driver writes /proc/PID/task/TID/comm, or does not start."""
    needs("private file system", programs=True)
    code = """
import os
for path in (f"/proc/self/task/{os.getpid()}/comm", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try:
        open(path, "w").write("x")
        print("written")
    except OSError as error:
        print(type(error).__name__)
"""
    with_devices = python(Cage(scratch, devices=("/dev/full",), programs=True), code, *options).split()
    assert with_devices[0] == "written" and "written" not in with_devices[1:]
    assert "written" not in python(Cage(scratch, programs=True), code, *options)


def test_a_block_device_is_refused(scratch: str) -> None:
    needs("own mount namespace")
    blocks = [str(node) for node in Path("/dev").iterdir() if stat.S_ISBLK(node.lstat().st_mode)]
    if not blocks:
        pytest.skip("no block device here")
    code = "print(layers); print(open('/proc/self/mountinfo').read())"
    assert "no private file system" in forked(Cage(scratch, devices=(blocks[0],)), code)


def test_a_candidate_starts_no_program_and_no_process_but_threads(scratch: str) -> None:
    needs("system call filter")
    code = """
import subprocess, sys, threading
attempts = {
    "run": lambda: subprocess.run([sys.executable, "-V"]),
    "fork": os.fork,
    "exec": lambda: os.execv(sys.executable, [sys.executable, "-V"]),
    "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-V"], {}),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "worked")
    except PermissionError:
        print(name, "refused")
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()
"""
    seen = forked(Cage(scratch), code).splitlines()
    assert seen == ["run refused", "fork refused", "exec refused", "spawn refused", "thread", "status 0"]


def test_the_kernel_is_out_of_reach(scratch: str) -> None:
    needs("system call filter", programs=True)
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "ptrace": lambda: libc.ptrace(0, 0, 0, 0),
    "unshare": lambda: libc.unshare(0x10000000),
    "mount": lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None),
    "dumpable": lambda: libc.prctl(4, 0, 0, 0, 0),
    "personality": lambda: libc.personality(0x40000),
    "raw socket": lambda: libc.socket(17, 3, 0),
}
for name, call in calls.items():
    print(name, call(), ctypes.get_errno())
print(libc.prctl(4, 1, 0, 0, 0), libc.socket(1, 1, 0) > 0)
"""
    *refused, allowed = python(Cage(scratch, programs=True), code).splitlines()
    assert all(line.endswith("-1 1") for line in refused) and len(refused) == 6, refused
    assert allowed == "0 True"


def test_how_a_candidate_ends_is_what_its_parent_sees(scratch: str) -> None:
    fault = "import ctypes; ctypes.string_at(0)"
    cases = {"os.abort()": signal.SIGABRT, fault: signal.SIGSEGV, "os.kill(os.getpid(), 15)": signal.SIGTERM}
    for code, number in cases.items():
        status = ended(forked(Cage(scratch), code))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number, (code, status)
    assert os.WEXITSTATUS(ended(forked(Cage(scratch), "os._exit(7)"))) == 7
    command = start(Cage(scratch, programs=True), sys.executable, "-c", "import os; os.abort()")
    assert run(command, scratch).returncode == -signal.SIGABRT


def test_a_channel_ends_with_the_caged_process(scratch: str) -> None:
    ours, theirs = socket.socketpair()
    code = (
        f"import os, time; os.write({theirs.fileno()}, b'!'); os.close(1); os.close({theirs.fileno()}); time.sleep(60)"
    )
    command = start(Cage(scratch, programs=True), sys.executable, "-c", code)
    process = subprocess.Popen(
        command, env=environment(), cwd=scratch, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    with ours:
        ours.settimeout(60)
        assert ours.recv(1) == b"!"
        assert ours.recv(1) == b"", "nobody but the caged process holds the channel"
    process.kill()
    process.wait(10)


def test_a_compiler_works(scratch: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    cage = Cage(scratch, programs=True)
    assert "Free Software" in run(start(cage, "g++", "--version"), scratch).stdout
    build = "echo 'int main() { return 3; }' > a.cpp && g++ a.cpp -o a && ./a"
    assert run(start(cage, "sh", "-c", build), scratch).returncode == 3


def test_a_program_that_is_not_there_is_said(scratch: str) -> None:
    done = run(start(Cage(scratch, programs=True), "no-such-program"), scratch)
    assert done.returncode == 1 and "no-such-program cannot be started" in done.stderr


def test_a_cage_without_programs_cannot_become_one(scratch: str) -> None:
    done = run(start(Cage(scratch), "true"), scratch)
    assert done.returncode == 2 and "without programs" in done.stderr


@pytest.fixture
def sleeper(scratch: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A cage in which a program sleeps, and the program's pid as we see it."""
    ours, theirs = os.pipe()
    command = start(Cage(scratch, programs=True), "sleep", "60", options=("--pid-fd", str(theirs)))
    process = subprocess.Popen(command, env=environment(), cwd=scratch, pass_fds=[theirs])
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        inner = int(pipe.readline())
        assert pipe.read() == "", "the descriptor is closed in the cage"
    yield process, inner
    process.kill()
    process.wait(10)


def test_killing_the_outer_process_kills_the_caged_one(sleeper: tuple[subprocess.Popen[bytes], int]) -> None:
    process, inner = sleeper
    assert not gone(inner)
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 10
    while not gone(inner) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(inner)


def test_the_caged_process_can_be_killed_by_its_pid(sleeper: tuple[subprocess.Popen[bytes], int]) -> None:
    process, inner = sleeper
    os.kill(inner, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL


def test_what_a_program_leaves_behind_ends_with_it(scratch: str) -> None:
    needs("own pid namespace", programs=True)
    started = time.monotonic()
    done = run(start(Cage(scratch, programs=True), "sh", "-c", "setsid sleep 60 & exit 4"), scratch)
    assert done.returncode == 4 and time.monotonic() - started < 30, "the pipe closed: nobody is left"


def test_limits_hold_and_are_named(scratch: str) -> None:
    code = "import resource; print(layers); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    seen = forked(Cage(scratch, limits={"NOFILE": 64, "NPROC": 500}), code)
    assert "(64, 64)" in seen and "process limit" in seen


def test_user_and_capabilities_are_gone(scratch: str) -> None:
    for programs in (False, True):
        code = "print(open('/proc/self/status').read()); print(layers)"
        status = dict(
            line.split(":\t", 1)
            for line in forked(Cage(scratch, programs=programs), code).splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        if any(layer.startswith("own user") for layer in probe(programs)):
            assert status["Uid"].split() == [str(Cage(scratch, programs=programs).uid)] * 4
            assert not status["Groups"].strip()


def test_a_cage_in_a_cage_has_fewer_layers_and_says_so(scratch: str) -> None:
    inner = Cage(f"{scratch}/inner", programs=True)
    code = f"import os, sys; os.mkdir({inner.scratch!r}); os.execv(sys.executable, {start(inner, 'true')!r})"
    assert python(Cage(scratch, programs=True), code) == ""
    command = start(inner, "sh", "-c", "pwd; echo $HOME", options=("--report-fd", "1"))
    code = f"import os, sys; os.mkdir({inner.scratch!r}); os.execv(sys.executable, {command!r})"
    report, *printed = python(Cage(scratch, programs=True), code).splitlines()
    layers = json.loads(report)
    assert printed == [inner.scratch] * 2
    if not missing(layer for layer in probe(True) if "system call filter" in layer):
        assert any(layer.startswith("no own pid namespace: ") for layer in layers), layers
        assert "no private file system: it needs a mount namespace" in layers
        assert "all capabilities dropped" in layers and "new privileges refused" in layers


def test_a_normal_user_gets_a_cage(scratch: str, tmp_path: Path) -> None:
    """From another uid altogether, with an interpreter that it can reach."""
    if os.geteuid() != 0:
        pytest.skip("the other tests run as a normal user already")
    nobody = 65534
    check = "import sys, cudaforge.engine.confine; sys.exit(sys.version_info < (3, 11))"
    launch = "import os, sys; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); "
    launch += "os.execv(sys.argv[1], sys.argv[1:])"

    def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-c", launch, *command], "/")

    interpreters = [p for p in (sys.executable, "/usr/bin/python3") if Path(p).exists()]
    usable = [p for p in interpreters if as_nobody(p, "-c", check).returncode == 0]
    if not usable:
        pytest.skip(f"user {nobody} can run none of {interpreters}")
    folder = Path("/tmp").resolve() / f"cudaforge-test-{os.getpid()}"  # tmp_path is root's alone
    folder.mkdir()
    os.chown(folder, nobody, nobody)
    try:
        cage = Cage(str(folder), programs=True, limits={"NPROC": 500})
        command = start(cage, "sh", "-c", "id -u; ls -A /root /home", options=("--report-fd", "1"), python=usable[0])
        done = as_nobody(*command)
        report, uid, *_ = done.stdout.splitlines() or [done.stderr, ""]
        assert uid == str(nobody), done.stderr
        assert "all capabilities dropped" in json.loads(report)
        assert "process limit" in json.loads(report)
    finally:
        folder.rmdir()


def test_the_systems_roots_hold_no_checkout_and_no_home() -> None:
    roots = [Path(root) for root in system_roots()]
    for secret in (CHECKOUT / "tests", CHECKOUT / ".git", Path.home() / ".ssh"):
        assert not any(secret.is_relative_to(root) for root in roots), secret
    assert any((CHECKOUT / "cudaforge").is_relative_to(root) for root in roots)


@pytest.mark.parametrize("how", ["script", "module", "path"])
def test_a_users_project_on_the_import_path_stays_unseen(tmp_path: Path, how: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "tool.py").write_text(
        "import sys\nfrom cudaforge.engine.confine import system_roots\nprint(sys.path, system_roots())"
    )
    where = environment()["PYTHONPATH"] + (f"{os.pathsep}{project}" if how == "path" else "")
    command = [sys.executable, *(["-m", "tool"] if how == "module" else [str(project / "tool.py")])]
    done = subprocess.run(
        command, cwd=project, env={"PYTHONPATH": where}, capture_output=True, text=True, timeout=60, check=True
    )
    path, roots = done.stdout.split("] (")
    assert str(project) in path
    assert str(project) not in roots
    assert str(CHECKOUT / "cudaforge") in roots and sys.prefix in roots


def test_a_folder_that_its_user_cannot_come_to_does_without_a_user_of_its_own(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root becomes another user")
    closed = tmp_path / "closed" / "open"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        f"from pathlib import Path; folder = Path({str(closed)!r}); (folder / 'written').write_text('x'); "
        "print(folder.stat().st_uid)"
    )
    cage = Cage(str(scratch), read=(str(tmp_path),), write=(str(closed),), programs=True)
    assert python(cage, code) == "0"
    assert (closed / "written").read_text() == "x"
