"""kernel.cu and kernel.cpp against a small part of tvm-ffi's C++ headers, where that part is all they use.

Three quarters of the time in which nvcc builds such a kernel go into parsing tvm-ffi's headers, twice. tvm_slim/ holds
the part that kernels use, over the same C interface; device code does not depend on it. What it lacks does not compile
with it, and is built with tvm-ffi's own headers: theirs are the diagnostics that a model gets to see. A kernel that
leaves here is built with tvm-ffi's own headers (kernel_loader), so a verification builds it with them as well: what is
verified is what the user has, and a source that would tell the two apart gains nothing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

SLIM = Path(__file__).resolve().parent / "tvm_slim"
OWN = ("tvm/ffi/c_api.h", "tvm/ffi/extra/c_env_api.h", "dlpack/dlpack.h")
"""Of tvm-ffi's headers, those that are plain C and parsed at once."""
MAIN = "tvm/ffi/container/tensor.h"
"""It includes all of what the slim headers give, so nothing is there that would not be with tvm-ffi's own."""
HARMLESS = ("-O", "-f", "-m", "-g", "-lineinfo", "-use_fast_math", "--use_fast_math", "--fmad", "--expt", "-std=c++17")
"""Flags that tell nothing of headers begin so; a macro or a warning that is an error might be at odds with one set."""
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
DEFINE = re.compile(r"^\s*#\s*(define|undef)\b", re.MULTILINE)
TELLS_APART = re.compile(
    r"cudaforge_slim|CUDAFORGE_SLIM|__has_include|__INCLUDE_LEVEL__|^\s*#\s*(el)?if[^\n]*TVM_FFI|using\s+namespace\s+[\w:]*ffi\b"
    r"|namespace\s+tvm\b|operator\s*<<[^;{]*DLDataType|^\s*#\s*include\s*[^\s<\"]",
    re.MULTILINE,
)
"""What could compile or behave otherwise with tvm-ffi's own headers."""
INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]((?:tvm|dlpack)/[^>\"]+)[>\"]", re.MULTILINE)


@functools.cache
def served() -> frozenset[str]:
    """Headers that a source may include; with any other it would see parts of both."""
    return frozenset(OWN) | {str(path.relative_to(SLIM)) for path in (SLIM / "tvm").rglob("*.h")}


def serves(source: str, flags: Sequence[str] = ()) -> bool:
    """Whether a build with the slim headers is worth a try: a source that includes tensor.h, nothing of tvm-ffi's that
    is not served, and nothing before it or in the flags that tvm-ffi's headers might see."""
    plain = COMMENT.sub(" ", source)
    included = set(INCLUDE.findall(plain))
    if MAIN not in included or not included <= served() or TELLS_APART.search(plain):
        return False
    last = max(found.end() for found in INCLUDE.finditer(plain))
    return not DEFINE.search(plain, 0, last) and all(flag.startswith(HARMLESS) for flag in flags)


def with_slim_headers(command: list[str]) -> list[str]:
    """The same compiler call; it finds the slim headers before tvm-ffi's own."""
    first = next(i for i, part in enumerate(command) if part.startswith("-I"))
    return [*command[:first], f"-I{SLIM}", *command[first:]]


@functools.cache
def fingerprint() -> str:
    """Changes with the headers and with this file: part of the key of a cached build."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(SLIM.rglob("*.h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
