"""Builds and loads the library of a CudaForge kernel. In a kernel's folder this file is named kernel.py.

`from .kernel import f` gives the function that kernel.cu or kernel.cpp exports as `f` through tvm-ffi. The
library is built beside this file on first use (nvcc for kernel.cu, g++ for kernel.cpp), once per source,
flags and architecture. Needs torch and tvm-ffi alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def compile_command(source: Path, output: Path, flags: list[str], arch: str) -> list[str]:
    """The compiler call for kernel.cu (arch like `sm_90a`) or kernel.cpp (arch is what -march= takes)."""
    from tvm_ffi import libinfo

    includes = [f"-I{path}" for path in dict.fromkeys(map(str, libinfo.include_paths()))]
    if source.suffix == ".cu":
        virtual = arch.replace("sm_", "compute_")
        nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        base = [nvcc, "-std=c++17", "-O3", f"-gencode=arch={virtual},code={arch}", "-lineinfo", "-Xptxas=-v"]
        return [*base, "-shared", "-Xcompiler=-fPIC", *includes, *flags, str(source), "-o", str(output)]
    gxx = os.environ.get("CXX") or shutil.which("g++") or "g++"
    base = [gxx, "-std=c++17", "-O3", f"-march={arch}", "-fopenmp", "-shared", "-fPIC", "-fopt-info-vec-all"]
    return [*base, *includes, *flags, str(source), "-o", str(output)]


def library_name(source: Path, flags: list[str], arch: str) -> str:
    """File name of the library: it changes with source, flags and architecture."""
    digest = hashlib.sha256(json.dumps([source.read_text(), flags, arch]).encode()).hexdigest()[:16]
    return f"kernel-{arch}-{digest}.so"


def native_arch(source: Path) -> str:
    """The architecture to build for on this machine."""
    if source.suffix != ".cu":
        return "native"
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}" + ("a" if major >= 9 else "")


def _load() -> Any:
    import tvm_ffi

    source = next(path for path in (HERE / "kernel.cu", HERE / "kernel.cpp") if path.exists())
    flags = list(json.loads((HERE / "kernel.json").read_text())["flags"])
    arch = native_arch(source)
    library = HERE / library_name(source, flags, arch)
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=HERE) as scratch:
            output = Path(scratch) / library.name
            done = subprocess.run(
                compile_command(source, output, flags, arch), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ImportError(f"{source.name} does not build:\n{done.stderr}")
            output.replace(library)
    return tvm_ffi.load_module(str(library))


_module: Any = None


def __getattr__(name: str) -> Any:
    global _module
    if name.startswith("__"):
        raise AttributeError(name)
    if _module is None:
        _module = _load()
    try:
        return getattr(_module, name)
    except AttributeError:
        raise AttributeError(f"the kernel's library exports no function {name!r}") from None
