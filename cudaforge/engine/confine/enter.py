"""The way into a cage, layer by layer."""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cudaforge.engine.confine.cage import Cage, Layers
from cudaforge.engine.confine.landlock import landlock
from cudaforge.engine.confine.linux import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, libc, prctl
from cudaforge.engine.confine.mounts import private_root
from cudaforge.engine.confine.processes import (
    die_with_parent,
    first_to_go,
    namespaces,
    own_session,
    settle,
    split,
    tell_pid,
)
from cudaforge.engine.confine.readable import system_roots
from cudaforge.engine.confine.seccomp import filter_calls
from cudaforge.engine.confine.users import bar_capabilities, become, drop_capabilities, limit


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
    own_session()
    for path in (*cage.read, *cage.write, *cage.devices):
        Path(path).stat()
    in_user_namespace = namespaces(layers, was_root if privileged is None else was_root and privileged)
    die_with_parent(lambda: parent is None or os.getppid() == parent)
    layers.attempt("first to go when memory runs out", first_to_go)

    orphaned = split(pid_fd) if "own pid namespace" in layers else None
    if orphaned is None and pid_fd is not None:
        tell_pid(pid_fd, os.getpid())
    roots = system_roots()
    private = False
    if "own mount namespace" in layers:
        private = layers.attempt("private file system", private_root, cage, roots, layers)
    else:
        layers.append("no private file system: it needs a mount namespace")
    settle(cage.scratch)

    bar_capabilities()
    if was_root and in_user_namespace:
        layers.append("no own user: the user namespace knows root alone")
    elif was_root:
        layers.attempt("own user", become, cage)
    layers.attempt("all capabilities dropped", drop_capabilities)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if orphaned is not None:
        die_with_parent(orphaned)  # the kernel forgets the signal when the user changes
    layers.attempt("new privileges refused", prctl, PR_SET_NO_NEW_PRIVS, 1)
    limit(cage, layers)
    layers.attempt("Landlock", landlock, cage, roots, private)
    layers.attempt("system call filter", filter_calls, cage.programs)
    return tuple(layers)


@functools.cache
def probe(programs: bool = False) -> tuple[str, ...]:
    """The layers that `enter` puts in force on this machine: a throw-away child tries."""
    scratch = tempfile.mkdtemp(prefix="cudaforge-probe-")
    command = [sys.executable, "-m", "cudaforge.engine.confine", "--report-fd", "1", "--cage"]
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
