"""kernel.cu and kernel.cpp against a small part of tvm-ffi's C++ headers, where that part is all they use.

Three quarters of the time in which nvcc builds such a kernel go into parsing tvm-ffi's headers, twice. tvm_slim/ holds
the part that kernels use, over the same C interface; device code does not depend on it. What it lacks does not compile
with it, and is built with tvm-ffi's own headers: theirs are the diagnostics that a model gets to see. A kernel that
leaves here is built with tvm-ffi's own headers, too (kernel_loader), so nothing compiles with the slim ones alone.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

SLIM = Path(__file__).resolve().parent / "tvm_slim"
OWN = ("tvm/ffi/c_api.h", "tvm/ffi/extra/c_env_api.h", "dlpack/dlpack.h")
"""Of tvm-ffi's headers, those that are plain C and parsed at once."""
INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]((?:tvm|dlpack)/[^>\"]+)[>\"]", re.MULTILINE)


@functools.cache
def served() -> frozenset[str]:
    """Headers that a source may include; with any other it would see parts of both."""
    return frozenset(OWN) | {str(path.relative_to(SLIM)) for path in (SLIM / "tvm").rglob("*.h")}


def serves(source: str) -> bool:
    """Whether a build with the slim headers is worth a try: a source that includes something of tvm-ffi's, all of
    which is served."""
    included = set(INCLUDE.findall(source))
    return bool(included) and included <= served()


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
