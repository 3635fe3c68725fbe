"""`doctor`: what this machine has for a run, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cudaforge.cli.output import Home, Json
from cudaforge.errors import ExitCode

if TYPE_CHECKING:
    from cudaforge.shapes import Check

CAP_SYS_ADMIN = 21
LEAST_FREE_BYTES = 2 << 30
DRIVER_PARAMS = Path("/proc/driver/nvidia/params")
ESSENTIAL = ("PyTorch", "TVM FFI", "C++ compiler", "home")
"""Without these not even a C++ run on the CPU works."""
HINTS = (
    (
        r"^no (user|own \w+) namespace|^no private file system",
        "Allow user namespaces: sysctl user.max_user_namespaces above 0, "
        "kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor "
        "profile with userns (Ubuntu); in a container a seccomp profile that permits unshare, mount and pivot_root. "
        "Without, candidates see more of this machine: run only models that you trust.",
    ),
    (
        r"^no Landlock",
        "Linux 5.13 or newer with landlock among the modules of the boot option lsm=; in a container a seccomp "
        "profile that permits landlock_* calls.",
    ),
    (
        r"^no system call filter",
        "Only x86_64 and aarch64 have one, with a Linux that has CONFIG_SECCOMP_FILTER; in a container a "
        "seccomp profile that permits seccomp.",
    ),
    (
        r"^no own user",
        "Let every user read the Python that CudaForge runs with, and do not keep it in root's home; or run as a "
        "normal user where user namespaces are allowed.",
    ),
    (
        r"^no own /proc",
        "A container masks parts of /proc, so that no new one can be mounted: start it with the masks off "
        "(docker run --security-opt systempaths=unconfined). Without, a candidate sees the names of other processes.",
    ),
    (
        r"^no process limit",
        "Run as a normal user, or as root where another user can be become: root's processes are not counted.",
    ),
    (r"^no cage", "The interpreter cannot be started by itself: look at its own words above."),
    (r"", "The machine or its container refuses this layer; the others still hold."),
)
"""What to do about a layer that is missing: pattern of its line, and words. The first that fits is used."""


def doctor(home: Home = None, json: Json = False) -> None:
    """Look at compilers, GPU, profiler, confinement, keys and the home, and say what to do about what is missing.

    Exit code 0 where a C++ run on the CPU can work, 3 where not even that can.
    """
    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import DoctorOutput

    checks = tuple(examine(wiring.resolve_home(home)))
    ready = all(check.status != "missing" for check in checks if check.name in ESSENTIAL)
    if json:
        emit(DoctorOutput(ready=ready, checks=checks))
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        styles = {"ok": ("✓ ok", "green"), "warn": ("! warn", "yellow"), "missing": ("✗ missing", "red")}
        for check in checks:
            detail = Text(check.detail)
            if check.hint:
                detail.append(f"\n→ {check.hint}", "dim")
            table.add_row(Text(*styles[check.status]), check.name, detail)
        out().print(table)
    if not ready:
        raise typer.Exit(int(ExitCode.INFRASTRUCTURE))


def examine(home: Path) -> Iterator[Check]:
    """All checks, in the order in which they are shown."""
    from cudaforge import wiring

    yield _check("Python", "ok", platform.python_version())
    yield _distribution("PyTorch", "torch", "Install torch 2.11 or later.")
    yield _distribution("TVM FFI", "apache-tvm-ffi", "pip install apache-tvm-ffi")
    yield _compiler()
    yield _nvcc()
    yield _gpu()
    yield from _ncu()
    yield _sanitizer()
    yield from isolation(wiring.isolation_layers())
    yield _models()
    yield _home(home)


def _check(name: str, status: str, detail: str, hint: str = "") -> Check:
    from cudaforge.shapes import Check

    return Check.model_validate({"name": name, "status": status, "detail": detail, "hint": hint})


def _distribution(name: str, distribution: str, hint: str) -> Check:
    try:
        return _check(name, "ok", metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return _check(name, "missing", "not installed", hint)


def version_line(command: list[str], pattern: str) -> str:
    """The first match of `pattern` in what `command` prints; "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(0) if found and done.returncode == 0 else ""


def _compiler() -> Check:
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++")):
        path = shutil.which(name)
        if path and (version := version_line([path, "--version"], r"\S.*")):
            return _check("C++ compiler", "ok", f"{path}: {version}")
    return _check("C++ compiler", "missing", "no g++, c++ or clang++ on PATH", "Install g++, e.g. apt install g++.")


def _nvcc() -> Check:
    from cudaforge import wiring

    path = wiring.find_nvcc()
    version = version_line([str(path), "--version"], r"release [\d.]+(, V[\d.]+)?") if path else ""
    if not version:
        hint = "Install the CUDA toolkit and put nvcc on PATH or set CUDA_HOME; C++ kernels on the CPU work without."
        return _check("nvcc", "missing", f"{path} does not run" if path else "not found", hint)
    return _check("nvcc", "ok", f"{path}: {version}")


def _gpu() -> Check:
    from cudaforge import wiring

    if wiring.gpu_count() == 0:
        hint = "Install NVIDIA's driver (in a container: run it with --gpus all); C++ kernels on the CPU work without."
        return _check("GPU", "missing", "the driver shows no NVIDIA GPU", hint)
    import pynvml

    pynvml.nvmlInit()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
            found.append(f"{index}: {pynvml.nvmlDeviceGetName(handle)}, sm_{major}{minor}, {memory / 2**30:.0f} GiB")
        return _check("GPU", "ok", "; ".join(found) + f"; driver {driver}")
    except pynvml.NVMLError as error:
        return _check("GPU", "warn", f"the driver fails: {error}", "Look at nvidia-smi and the kernel log.")
    finally:
        pynvml.nvmlShutdown()


def _ncu() -> Iterator[Check]:
    path = shutil.which("ncu") or next(
        (str(p) for p in (Path("/usr/local/cuda/bin/ncu"),) if os.access(p, os.X_OK)), None
    )
    version = version_line([path, "--version"], r"Version [\d.]+") if path else ""
    if not version:
        hint = "Install Nsight Compute (part of the CUDA toolkit); runs work without, profiles then lack GPU counters."
        yield _check("ncu", "missing", "not found", hint)
        return
    yield _check("ncu", "ok", f"{path}: {version}")
    if not DRIVER_PARAMS.is_file():
        yield _check("ncu permission", "warn", "no driver here to ask", "Look again on the machine with the GPU.")
        return
    restricted = re.search(r"RmProfilingAdminOnly:\s*1", DRIVER_PARAMS.read_text(errors="replace")) is not None
    if restricted and not has_capability(CAP_SYS_ADMIN):
        hint = (
            "Load the driver with NVreg_RestrictProfilingToAdminUsers=0 (a line `options nvidia ...` in "
            "/etc/modprobe.d), or run with CAP_SYS_ADMIN."
        )
        yield _check("ncu permission", "warn", "the driver lets administrators alone read counters", hint)
    else:
        yield _check("ncu permission", "ok", "administrator" if restricted else "open to all users")


def _sanitizer() -> Check:
    path = shutil.which("compute-sanitizer")
    version = version_line([path, "--version"], r"Version [\d.]+") if path else ""
    if not version:
        hint = (
            "Put the CUDA toolkit's compute-sanitizer on PATH; verification works without, and does not look for "
            "memory errors on a GPU then."
        )
        return _check("compute-sanitizer", "missing", f"{path} does not run" if path else "not found", hint)
    return _check("compute-sanitizer", "ok", f"{path}: {version}")


def has_capability(number: int) -> bool:
    """Whether this process holds a Linux capability."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(found and int(found.group(1), 16) >> number & 1)


def isolation(layers: Sequence[str]) -> Iterator[Check]:
    """The layers around a candidate in one line, each that the machine refuses (`no NAME: why`) in one of its own."""
    present = [layer for layer in layers if not layer.startswith("no ")]
    if present:
        yield _check("isolation", "ok", "; ".join(present))
    said = set()
    for layer in layers:
        if layer.startswith("no "):
            hint = next(hint for pattern, hint in HINTS if re.search(pattern, layer))
            yield _check("isolation", "warn", layer, "As above." if hint in said else hint)
            said.add(hint)


def _models() -> Check:
    from cudaforge import wiring

    access = wiring.networked_access()
    if access.advice:
        return _check("model access", "warn", "no key for openai: models", access.advice)
    key = "with a key" if access.key_present else "without a key"
    return _check("model access", "ok", f"openai: models at {access.base_url} (from {access.base_url_from}), {key}")


def _home(home: Path) -> Check:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        hint = "Set CUDAFORGE_HOME to a folder that you can write to."
        return _check("home", "missing", f"{home} cannot be written", hint)
    free = shutil.disk_usage(existing).free
    detail = f"{home}, {free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return _check("home", "warn", detail, "Free some space; `cudaforge gc` deletes old reports and builds.")
    return _check("home", "ok", detail)
