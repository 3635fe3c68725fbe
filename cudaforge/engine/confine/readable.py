"""What every cage may read."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pwd
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

NEEDED = ("cudaforge", "cudaforge_profiling", "torch", "tvm_ffi", "numpy", "triton", "pydantic", "typing_extensions.py")
"""What processes in a cage import, or what that imports."""
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store")


def system_roots() -> tuple[str, ...]:
    """What every cage may read: the system's programs and libraries, this interpreter, its packages, PATH, CUDA.

    Of a checkout that holds this package, the packages alone, so that its tests, history and results stay unseen. Of
    the import path, what this interpreter and the packages that are needed lie in: a user's project may be on it, too,
    as the folder of a script, as the working folder or by a .pth file.
    """
    listed = [os.environ.get(name, "").split(os.pathsep) for name in ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME")]
    checkout, homes = source_checkout(), _homes()
    roots = [*SYSTEM_FOLDERS, sys.prefix, sys.base_prefix, str(Path(sys.executable).parent)]
    roots += [str(Path(__file__).parents[2])] if checkout else []
    for entry in dict.fromkeys([*sys.path, *(path for paths in listed for path in paths)]):
        if not entry.startswith("/") or any(home.is_relative_to(entry) for home in homes):
            continue
        if entry in sys.path and not is_needed(entry):
            continue
        if checkout and (Path(entry).is_relative_to(checkout) or checkout.is_relative_to(entry)):
            packages = (Path(entry, name) for name in ("cudaforge", "cudaforge_profiling"))
            roots += [str(package) for package in packages if os.access(package / "__init__.py", os.F_OK)]
        else:
            roots.append(entry)
    return tuple(root for root in dict.fromkeys(roots) if os.access(root, os.F_OK))


def is_needed(entry: str) -> bool:
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
def source_checkout() -> Path | None:
    """The source checkout that this package lies in; None where it is installed among other packages."""
    folder = Path(__file__).resolve().parents[3]
    installed = folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info"))
    return None if installed else folder


def real(path: str, links: dict[str, str]) -> str:
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


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths that lie below none of the others."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path == other or path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept
