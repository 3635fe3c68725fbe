"""torch.utils.cpp_extension.load_inline and load for `module` kernels: built in seconds where that is possible.

Nearly all of a plain build is spent on parsing torch's headers, three times in nvcc and once in g++. Here the same
compilers with the same flags are given torch_slim/ in their place: the part of torch's C++ interface that kernels in
a single file use, over torch's C shim and dispatcher, and the bindings over Python's C interface. The result is an
ordinary extension module. Whatever does not compile or load that way is built plainly, with plain torch's diagnostics,
and the build cache remembers it.

`accelerate` serves a process that may start compilers, `use_what_was_built` one that may not. Both share the process
with untrusted code: nothing here is trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SLIM = Path(__file__).resolve().parent / "torch_slim"
SERVED = {
    "core.h": (
        *("torch/types.h", "torch/all.h", "torch/torch.h", "ATen/ATen.h", "ATen/Tensor.h", "ATen/core/Tensor.h"),
        *("ATen/Dispatch.h", "ATen/Functions.h", "ATen/TensorUtils.h", "c10/core/ScalarType.h", "c10/core/Device.h"),
        *("c10/core/TensorOptions.h", "c10/util/ArrayRef.h", "c10/util/BFloat16.h", "c10/util/Exception.h"),
        *("c10/util/Half.h", "c10/util/Optional.h", "c10/macros/Macros.h"),
    ),
    "python.h": ("torch/extension.h", "torch/python.h", "torch/csrc/utils/pybind.h"),
    "cuda.h": (
        *("ATen/cuda/CUDAContext.h", "ATen/cuda/CUDAContextLight.h", "ATen/cuda/Exceptions.h"),
        *("c10/cuda/CUDAStream.h", "c10/cuda/CUDAException.h", "c10/cuda/CUDAFunctions.h"),
    ),
    "guard.h": ("c10/cuda/CUDAGuard.h", "ATen/cuda/CUDAGuard.h"),
}
"""Which header of cudaforge_slim/ stands for which of torch's. Others of torch's are not found, so that no source sees
parts of both."""
SETTINGS = ("TORCH_CUDA_ARCH_LIST", "CXX", "CC", "CUDA_HOME", "PYTORCH_NVCC")
"""Environment variables that change what a build gives."""


class NotAccelerated(Exception):  # noqa: N818 - the plain path serves it
    """The slim headers do not serve these sources; the text says why."""


@functools.cache
def fingerprint() -> str:
    """Changes with this file and the headers: part of the key of whatever is kept of a build."""
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted((SLIM / "cudaforge_slim").iterdir())):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def accelerate() -> None:
    """Makes cpp_extension in this process build with the slim headers and, where that fails, plainly. Idempotent."""
    import torch.utils.cpp_extension

    extension: Any = torch.utils.cpp_extension
    plain = extension._write_ninja_file_and_build_library
    if getattr(plain, "accelerated", False):
        return

    @functools.wraps(plain)
    def build(*arguments: Any, **named: Any) -> None:
        given = inspect.signature(plain).bind(*arguments, **named).arguments
        record = Record.read(given)
        if record.serves(given):
            return
        if record.key != key_of(given):
            try:
                build_slim(extension, plain, given)
                return
            except NotAccelerated as reason:
                library_of(given).unlink(missing_ok=True)
                Record(key_of(given), "plain", why=str(reason)).write(given)
        plain(**_copied(given))

    build.accelerated = True  # type: ignore[attr-defined]
    extension._write_ninja_file_and_build_library = build


def use_what_was_built() -> None:
    """Makes cpp_extension load what the builder's process has built, in place of building.

    This process may start no compiler, and its build cache is read-only. Sources and flags must come out the same.
    ImportError where they do not.
    """
    import torch.utils.cpp_extension

    extension: Any = torch.utils.cpp_extension
    plain = extension._write_ninja_file_and_build_library

    class NoLock:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def try_acquire(self) -> bool:
            return True

        def release(self) -> None: ...

    @functools.wraps(plain)
    def built(*arguments: Any, **named: Any) -> None:
        given = inspect.signature(plain).bind(*arguments, **named).arguments
        record = Record.read(given)
        known = record.serves(given) or (record.how == "plain" and record.key == key_of(given))
        if not known or not library_of(given).is_file():
            raise ImportError(
                f"extension {given['name']} was not built when the kernel was built: what a kernel builds must be the "
                "same in every process"
            )

    extension.FileBaton = NoLock
    extension._write_ninja_file_and_build_library = built


class Record:
    """What is known of an extension's build, beside its library: the key of what it was built from, and how."""

    def __init__(self, key: str = "", how: str = "", *, library: str = "", why: str = "") -> None:
        self.key, self.how, self.library, self.why = key, how, library, why

    @staticmethod
    def path(given: dict[str, Any]) -> Path:
        """Where it lies."""
        return Path(given["build_directory"]) / f"{given['name']}.built.json"

    @classmethod
    def read(cls, given: dict[str, Any]) -> Record:
        """The one beside the library of these arguments; an empty one where there is none."""
        try:
            data = json.loads(cls.path(given).read_text())
            return cls(str(data["key"]), str(data["how"]), library=str(data["library"]), why=str(data["why"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, given: dict[str, Any]) -> None:
        """Keeps it."""
        self.path(given).write_text(json.dumps(vars(self)))

    def serves(self, given: dict[str, Any]) -> bool:
        """Whether the library is what the slim headers gave for the same sources and flags."""
        if self.how != "slim" or self.key != key_of(given):
            return False
        library = library_of(given)
        return library.is_file() and hashlib.sha256(library.read_bytes()).hexdigest() == self.library


def library_of(given: dict[str, Any]) -> Path:
    """The extension module that a build makes."""
    return Path(given["build_directory"]) / f"{given['name']}.so"


def key_of(given: dict[str, Any]) -> str:
    """A digest of what a build depends on: sources, flags, torch, the environment, this package's headers.

    It stays the same where a kernel's folders are copied: files and include folders count by their last name.
    """
    import torch

    flags = {name: value for name, value in given.items() if name not in ("sources", "build_directory", "verbose")}
    flags["extra_include_paths"] = [Path(path).name for path in given.get("extra_include_paths") or ()]
    texts = [[Path(source).name, Path(source).read_text(errors="replace")] for source in given["sources"]]
    settings = [os.environ.get(name) for name in SETTINGS]
    parts = [texts, sorted(flags.items()), settings, torch.__version__, fingerprint()]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def build_slim(extension: Any, plain: Callable[..., None], given: dict[str, Any]) -> None:
    """Builds an extension with the slim headers and records it. Raises NotAccelerated.

    torch writes its own ninja file, into a folder below the extension's; there the paths of torch's headers are
    exchanged, and ninja compiles the sources side by side.
    """
    folder = Path(given["build_directory"]) / f"slim-{given['name']}"
    shutil.rmtree(folder, ignore_errors=True)
    run = extension._run_ninja_build

    def edit_and_run(directory: str, *_: Any, **__: Any) -> None:
        _exchange_headers(extension, Path(directory))
        run(directory, False, "slim")

    try:
        write_headers(folder / "include")
        with _attribute(extension, "_run_ninja_build", edit_and_run), _no_dependencies():
            plain(**{**_copied(given), "build_directory": str(folder), "verbose": False})
        library = library_of(given)
        (folder / library.name).replace(library)
        # Now, and not when a kernel is first called: a name that torch does not export makes it a plain build.
        ctypes.CDLL(str(library), os.RTLD_NOW | os.RTLD_LOCAL)
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        Record(key_of(given), "slim", library=digest).write(given)
    except NotAccelerated:
        raise
    except Exception as error:
        raise NotAccelerated(_reason(str(error))) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_headers(include: Path) -> None:
    """Fills an include folder: the headers of torch's that are served, and a link to the header-only ones."""
    import torch

    for own, names in SERVED.items():
        for name in names:
            path = include / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#include <cudaforge_slim/{own}>\n")
    (include / "torch" / "headeronly").symlink_to(Path(torch.__file__).parent / "include" / "torch" / "headeronly")


def _exchange_headers(extension: Any, folder: Path) -> None:
    """Puts the slim headers in place of torch's in a ninja file that torch has written."""
    ninja = folder / "build.ninja"
    text = ninja.read_text()
    first, *others = extension.include_paths()
    slim = f"-isystem {folder / 'include'} -isystem {SLIM}"
    text, count = re.subn(rf"-isystem {re.escape(first)}(?=\s)", lambda _: slim, text)
    for path in others:
        text = re.sub(rf"-isystem {re.escape(path)}(?=\s)", "", text)
    if not count or f"{first}" in text:
        raise NotAccelerated("torch's include folder is named in another way than usual")
    ninja.write_text(text)


def _copied(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with lists of their own: torch appends to what it is given."""
    return {name: list(value) if isinstance(value, list) else value for name, value in given.items()}


def _reason(text: str) -> str:
    """The first error of a compiler's output."""
    lines = [line for line in text.splitlines() if "error" in line.lower()]
    return next((line for line in lines if not line.startswith("Error building")), text.strip())[:500]


@contextlib.contextmanager
def _attribute(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


@contextlib.contextmanager
def _no_dependencies() -> Iterator[None]:
    """Without nvcc's list of the headers read, which takes a pass of its own: this folder is built once."""
    name = "TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
