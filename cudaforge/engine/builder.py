"""Sources in, package with binary out: nvcc or g++ by one direct call, confined, cached by content.

The compiler runs with our flags in a cage of its own and sees no input. What it says becomes structured
diagnostics. A `triton` or `module` kernel has no compiler call of ours: it builds itself when it is loaded and first
run, in a process that may start compilers and sees inputs of a throw-away seed, into a cache folder that belongs to
its package; the process that is judged reads that folder and may start nothing. What such a kernel builds through
torch's load_inline is served by inline.py.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from cudaforge import kernel_loader
from cudaforge.engine import inline, nvcc, slim_ffi
from cudaforge.engine.sandbox import LIMITS, Child, ChildDied, ChildError, ChildTimeout, run_caged
from cudaforge.errors import EvaluatorError
from cudaforge.evaluation import Build, Diagnostic
from cudaforge.kernel import Kernel
from cudaforge_profiling.compilers import CompilerMessage, parse_gxx, parse_nvcc
from cudaforge_profiling.resources import parse_ptxas, parse_vectorization
from cudaforge_profiling.types import Device

MAX_LOG = 4 << 20


class BuildFailed(Exception):  # noqa: N818 - an outcome that becomes a verdict
    """The sources do not build; `diagnostics` says where. `compiled`: the compiler ended by itself, and will again."""

    def __init__(
        self, reason: str, diagnostics: tuple[Diagnostic, ...], build: Build, *, compiled: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.diagnostics, self.build, self.compiled = reason, diagnostics, build, compiled


class _Failure(BaseModel):
    """A BuildFailed as it is kept in the cache."""

    reason: str
    diagnostics: tuple[Diagnostic, ...]
    build: Build

    def again(self) -> BuildFailed:
        return BuildFailed(
            self.reason, self.diagnostics, self.build.model_copy(update={"cached": True, "seconds": 0.0}), compiled=True
        )


class BuildTimeout(Exception):  # noqa: N818 - likewise
    """The compiler did not end in time."""


@dataclass(frozen=True)
class Built:
    """A package ready to be imported."""

    package: Path
    build: Build
    caches: dict[str, str]
    """Environment variables that lead load_inline and Triton to this package's own build cache."""
    settings: dict[str, str]
    """Other environment variables of every process that imports the package (`settings_for`)."""

    @property
    def env(self) -> dict[str, str]:
        """What a process that imports the package finds in its environment."""
        return {**self.caches, **self.settings}


def compile_kernel(
    kernel: Kernel, device: Device, cache: Path, timeout_s: float, *, as_it_leaves: bool = False
) -> Built:
    """Builds a kernel, or takes it from `cache`. Raises BuildFailed, BuildTimeout, EvaluatorError.

    `as_it_leaves`: as its user will build it, without the slim headers.
    """
    folder = cache / "build" / f"{kernel.id}-{_cache_key(kernel, device)}"
    if as_it_leaves and slim_ffi.serves(kernel.source, kernel.flags):
        folder = folder.with_name(f"{folder.name}-plain")
    done = folder / "build.json"
    caches = {"TORCH_EXTENSIONS_DIR": str(folder / "extensions"), "TRITON_CACHE_DIR": str(folder / "triton")}
    settings = settings_for(device)
    if done.is_file():
        build = Build.model_validate_json(done.read_text())
        os.utime(folder)
        return Built(folder / kernel.id, build.model_copy(update={"cached": True, "seconds": 0.0}), caches, settings)
    failure = folder.with_name(f"{folder.name}-failed")
    if (failure / "failure.json").is_file():
        raise _Failure.model_validate_json((failure / "failure.json").read_text()).again()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as scratch:
        staged = Path(scratch) / "staged"
        package = kernel.write_package(staged / kernel.id)
        for name in ("extensions", "triton"):
            (staged / name).mkdir()
        make_readable(staged)
        try:
            compiled = kernel.language.source_name is not None
            build = _compile(kernel, package, device, timeout_s, as_it_leaves) if compiled else Build()
        except BuildFailed as failed:
            if failed.diagnostics and failed.compiled:
                _keep(failed, Path(scratch) / "failed", failure)
            raise
        (staged / "build.json").write_text(build.model_dump_json())
        make_readable(staged)
        try:
            staged.rename(folder)
        except OSError:
            if not done.is_file():  # another process was quicker: its result is the same
                raise
    return Built(folder / kernel.id, build, caches, settings)


def settings_for(device: Device) -> dict[str, str]:
    """Environment variables that make load_inline build for this device without asking one."""
    match = re.fullmatch(r"sm_(\d+)(\d)(\w?)", device.arch) if device.kind == "cuda" else None
    return {"TORCH_CUDA_ARCH_LIST": f"{match[1]}.{match[2]}{match[3]}"} if match else {}


def build_ahead(kernel: Kernel, built: Built, timeout_s: float) -> None:
    """Imports a Python-only kernel in a cage without a device, so that what it compiles with load_inline is compiled
    beside the device. Where that fails, it is built when it is loaded, and what is wrong is said then. Raises
    BuildTimeout."""
    if not any("cpp_extension" in text for text in kernel.files.values()):
        return
    caches = tuple(built.caches.values())
    child = Child(
        "candidate", read=(str(built.package),), write=caches, programs=True, limits=LIMITS, extra_env=built.env
    )
    try:
        child.started(60.0)
        child.ask({"do": "build", "package": str(built.package)}, timeout_s)
    except (ChildError, ChildDied, ChildTimeout) as failure:
        for lock in Path(built.caches["TORCH_EXTENSIONS_DIR"]).rglob("lock"):
            lock.unlink(missing_ok=True)  # who died in between would be waited for
        if isinstance(failure, ChildTimeout):
            raise BuildTimeout from None
    finally:
        child.close()


def _keep(failed: BuildFailed, new: Path, folder: Path) -> None:
    """Keeps what the compiler said: whoever asks for the same kernel gets it at once."""
    kept = _Failure(reason=failed.reason, diagnostics=failed.diagnostics, build=failed.build)
    new.mkdir()
    (new / "failure.json").write_text(kept.model_dump_json())
    with contextlib.suppress(OSError):  # another process was quicker
        new.rename(folder)


def make_readable(folder: Path) -> None:
    """Lets the users that caged processes run as read a folder that this process owns, whatever the umask."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def _compile(kernel: Kernel, package: Path, device: Device, timeout_s: float, as_it_leaves: bool) -> Build:
    source = package / str(kernel.language.source_name)
    arch = device.arch if source.suffix == ".cu" else "native"
    library = package / kernel_loader.library_name(source, list(kernel.flags), arch)
    command = kernel_loader.compile_command(source, library, list(kernel.flags), arch)
    if shutil.which(command[0]) is None:
        raise EvaluatorError(
            f"the compiler {Path(command[0]).name} is not installed.",
            "Run `cudaforge doctor`; install it or set its path.",
        )
    started = time.monotonic()
    parse = parse_nvcc if source.suffix == ".cu" else parse_gxx
    done: tuple[int, str] | None = None
    if not as_it_leaves and slim_ffi.serves(kernel.source, kernel.flags):
        slim = slim_ffi.with_slim_headers(command)
        with contextlib.suppress(BuildTimeout):  # then with all headers, in the time that a kernel has
            quick = nvcc.side_by_side(slim) if source.suffix == ".cu" else None
            done = _run(quick or slim, package, timeout_s / 2)
        # What ptxas says of the device code does not depend on headers; whatever else fails is tried with all of them.
        if done and done[0] and not any(m.tool == "ptxas" and m.severity == "error" for m in parse(done[1])):
            done = None
        command = slim if done else command
    code, log = done or _run(command, package, timeout_s)
    messages = parse(log)
    if source.suffix == ".cu":
        remarks, entries = parse_ptxas(log, source=kernel.source)
    else:
        remarks, entries = parse_vectorization(log), ()
    build = Build(
        command=tuple(_shorten(part, package) for part in command),
        seconds=time.monotonic() - started,
        binary_sha256=hashlib.sha256(library.read_bytes()).hexdigest() if library.exists() else "",
        compiler=compiler_version(command[0]),
        entry_functions=entries,
        remarks=remarks,
    )
    if code:
        diagnostics = _diagnostics(messages, kernel)
        first = next((d for d in diagnostics if d.severity == "error"), None)
        reason = (
            f"{first.file}:{first.line}: {first.message}" if first and first.line else first.message if first else ""
        )
        if not reason:
            reason = (log.strip().splitlines() or [f"the compiler ended with exit code {code}"])[-1][:500]
            diagnostics = (*diagnostics, Diagnostic(severity="error", message=reason, tool=Path(command[0]).name))
        # Killed, or out of memory or disk: that is this moment's failure.
        passing = code < 0 or re.search(r"Killed|out of memory|No space left|virtual memory exhausted", log)
        raise BuildFailed(reason, diagnostics, build, compiled=not passing)
    return build


def _run(command: list[str], folder: Path, timeout_s: float) -> tuple[int, str]:
    """Runs a compiler in a cage that may write `folder`; returns exit code and output. Raises BuildTimeout."""
    with tempfile.TemporaryDirectory(prefix="cudaforge-build-") as scratch, tempfile.TemporaryFile() as log:
        try:
            code = run_caged(command, scratch=Path(scratch), log=log, timeout_s=timeout_s, write=(str(folder),))
        except subprocess.TimeoutExpired:
            raise BuildTimeout from None
        log.seek(0)
        return code, log.read(MAX_LOG).decode("utf-8", "replace").replace(f"{folder}/", "")


def _diagnostics(messages: Sequence[CompilerMessage], kernel: Kernel) -> tuple[Diagnostic, ...]:
    lines = {name: text.splitlines() for name, text in kernel.files.items()}
    found = []
    for message in messages[:50]:
        name = Path(message.file).name if message.file else ""
        text = lines.get(name, [])
        found.append(
            Diagnostic(
                severity=message.severity,
                message=message.message,
                file=name,
                line=message.line,
                column=message.column,
                source_line=text[message.line - 1] if 0 < message.line <= len(text) else message.source_line,
                tool=message.tool,
            )
        )
    return tuple(found)


def _shorten(part: str, package: Path) -> str:
    """A command as it is stored: without the paths of this machine's cache."""
    return part.replace(f"{package}/", "")


def _cache_key(kernel: Kernel, device: Device) -> str:
    """Everything besides the kernel itself that the binary depends on."""
    import torch
    import tvm_ffi

    parts = [device.arch, torch.__version__, tvm_ffi.__version__, Path(kernel_loader.__file__).read_text()]
    if kernel.language.source_name:
        parts += [compiler_version(_compiler(kernel)), device.name if device.kind == "cpu" else ""]
        parts += [slim_ffi.fingerprint()]
    else:
        parts += [inline.fingerprint()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _compiler(kernel: Kernel) -> str:
    source = Path(str(kernel.language.source_name))
    return kernel_loader.compile_command(source, source, [], "native")[0]


@functools.cache
def compiler_version(compiler: str) -> str:
    """The compiler's own version line; empty where it does not run."""
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines()
    return next((line for line in lines if "release" in line), lines[0] if lines else "").strip()
