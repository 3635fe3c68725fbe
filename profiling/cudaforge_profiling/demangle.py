"""C++ names as people read them."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable


@functools.cache
def _cxa_demangle() -> Callable[..., int | None] | None:
    """The C++ runtime's own demangler: torch cannot run where it is missing, and no process need be started."""
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    return function


@functools.lru_cache(maxsize=1024)
def demangle(name: str) -> str:
    """`scale(float*, int)` for `_Z5scalePfi`; the name itself where it is not mangled or cannot be read."""
    function = _cxa_demangle()
    if function is None or not name.startswith("_Z"):
        return name
    status = ctypes.c_int()
    pointer = function(name.encode(), None, None, ctypes.byref(status))
    if not pointer:
        return name
    text = ctypes.string_at(pointer).decode("utf-8", "replace")
    ctypes.CDLL(None).free(ctypes.c_void_p(pointer))
    return text


def short_name(demangled: str) -> str:
    """Without return type and arguments, template arguments kept: `scale<4>` for `void scale<4>(float*)`."""
    text = demangled.strip()
    if text.endswith(")"):
        depth = 0
        for at in range(len(text) - 1, -1, -1):
            depth += {")": 1, "(": -1}.get(text[at], 0)
            if depth == 0:
                # "(anonymous namespace)" at the very end would leave nothing.
                text = text[:at].rstrip() or text
                break
    return text.removeprefix("void ")


def readable(name: str) -> str:
    """The short name of a mangled one; of one that was cut, its qualified name: `at::native::gelu_kernel`."""
    plain = short_name(demangle(name))
    if plain != name or not (match := re.match(r"_ZN?K?(?=\d)", name)):
        return plain
    parts, at = [], match.end()
    while length := re.compile(r"\d+").match(name, at):
        at = length.end() + int(length[0])
        parts.append(name[length.end() : at])
    return "::".join(parts)
