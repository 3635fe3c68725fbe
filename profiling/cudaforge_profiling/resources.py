"""What the compilers say about a build that worked: registers, spills and shared memory; loops vectorised or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cudaforge_profiling.compilers import CompilerMessage, parse_gxx, parse_nvcc
from cudaforge_profiling.demangle import demangle, short_name
from cudaforge_profiling.types import Remark

__all__ = [
    "CompilerMessage",
    "entry_functions",
    "parse_gxx",
    "parse_nvcc",
    "parse_ptxas",
    "parse_vectorization",
    "remarks",
]

_ENTRY = re.compile(r"^ptxas info *: Compiling entry function '([^']+)' for '(\w+)'")
_PROPERTIES = re.compile(r"^ptxas info *: Function properties for '?([^'\s]+)'?")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"^ptxas info *: Used (\d+) registers(.*)$")
_ADVICE = re.compile(r"^ptxas (?:info|warning) *: (\(C\d+\) .*)$")


def parse_ptxas(text: str, *, source: str = "", file: str = "kernel.cu") -> tuple[tuple[Remark, ...], tuple[str, ...]]:
    """Reads `nvcc -Xptxas -v`: one `resource` remark a kernel, ptxas's performance hints as `note`s, and the mangled
    names of the entry functions, which attribute launches to this binary.

    Args:
        source: the kernel's text; a remark then stands at the line of its `__global__` function, else at line 0.
    """
    remarks: list[Remark] = []
    entries: list[str] = []
    kernel = owner = ""
    frame = (0, 0, 0)
    for line in text.splitlines():
        if match := _ENTRY.match(line):
            kernel = owner = match[1]
            frame = (0, 0, 0)
            entries.append(kernel)
        elif match := _PROPERTIES.match(line):
            owner = match[1]
        elif (match := _FRAME.search(line)) and owner == kernel:
            frame = (int(match[1]), int(match[2]), int(match[3]))
        elif (match := _USED.match(line)) and kernel:
            name = short_name(demangle(kernel))
            message = _resources(name, int(match[1]), match[2], frame)
            remarks.append(Remark(file=file, line=_line_of(name, source), kind="resource", message=message))
            kernel = ""
        elif match := _ADVICE.match(line):
            message = re.sub(r"\b_Z\w+", lambda m: short_name(demangle(m[0])), match[1])
            remarks.append(Remark(file=file, line=0, kind="note", message=message))
    return tuple(dict.fromkeys(remarks)), tuple(dict.fromkeys(entries))


def _resources(name: str, registers: int, rest: str, frame: tuple[int, int, int]) -> str:
    stack, stores, loads = frame
    parts = [f"{registers} registers per thread"]
    if shared := re.search(r"(\d+) bytes smem", rest):
        parts.append(f"{shared[1]} bytes of static shared memory")
    if barriers := re.search(r"used ([1-9]\d*) barriers", rest):
        parts.append(f"{barriers[1]} barrier{'s' if barriers[1] != '1' else ''}")
    if stack:
        parts.append(f"{stack} bytes of stack")
    spills = f"spills {stores} bytes in stores and {loads} in loads" if stores or loads else "no spills"
    return f"{name}: {', '.join(parts)}, {spills}"


def _line_of(name: str, source: str) -> int:
    """Line of the `__global__` function, 1-based; 0 where it is not found."""
    plain = re.sub(r"<.*", "", name).rsplit("::", 1)[-1]
    match = re.search(rf"__global__[^;{{}}]*?\b{re.escape(plain)}\s*\(", source) if plain else None
    return source.count("\n", 0, match.end()) + 1 if match else 0


def entry_functions(text: str) -> tuple[str, ...]:
    """Mangled names of the kernels in a build, from `nvcc -Xptxas -v`."""
    return parse_ptxas(text)[1]


def remarks(text: str, file: str, source: str = "") -> tuple[Remark, ...]:
    """What the compiler of `file` (by its suffix: .cu, else g++) remarked on a build that worked."""
    return (
        parse_ptxas(text, source=source, file=file)[0] if file.endswith(".cu") else parse_vectorization(text, file=file)
    )


_LOOP = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: (?P<kind>optimized|missed): +(?P<message>.*)$")
_FAILED = "couldn't vectorize loop"
# Statements on hand-written SIMD, in g++'s notation: intrinsics, accesses through their types, which may alias (but
# not a memcpy of one plain number), and GCC's vector types.
_BY_HAND = re.compile(r"__builtin_ia32_|\bvector\(\d+\)|\b__m\d+|\buint(?:128|256|512)_t\b|MEM\[\([^)]*\{ref-all\}\)")
_NO_VECTOR = ("no vectype for stmt", "unsupported use in stmt")
_ORDERED = (
    "values pass from one iteration to the next in an order that g++ must keep; for a sum or a maximum "
    "#pragma omp simd reduction(...) lifts that"
)
_OMP_DATA = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: note: .*\.omp_data_o\b")


def parse_vectorization(text: str, *, file: str = "kernel.cpp", limit: int = 24) -> tuple[Remark, ...]:
    """Reads g++'s `-fopt-info-vec-all` for one source file: which loops became SIMD code, and why others did not.

    One remark a line and kind, missed loops first since they are what can be acted on, at most `limit`. g++ tries one
    loop in several vector widths: a loop that one of them vectorised is not missed, and the widest is reported.

    Left out is what says nothing of the kernel's loops: that hand-written SIMD cannot be vectorised once more, and
    what g++ did with the code that it made itself for an OpenMP region, at the line of its pragma.
    """
    vectorized: dict[int, str] = {}
    missed: dict[int, str] = {}
    by_hand: set[int] = set()
    generated: set[int] = set()
    pragmas = {
        int(match["line"])
        for match in map(_OMP_DATA.match, text.splitlines())
        if match and PurePosixPath(match["file"]).name == file
    }
    for line, kind, message in _loops(text, file):
        if kind == "optimized":
            if message.startswith("basic block") and line in pragmas:
                continue
            # A loop outranks the straight-line code around it; the widest width comes first.
            better = line not in vectorized or vectorized[line].startswith("basic block")
            if "vectorized" in message and better:
                vectorized[line] = message
        else:
            if line in pragmas and "number of iterations" in message:
                generated.add(line)
            if _BY_HAND.search(message):
                by_hand.add(line)
            missed[line] = max(missed.get(line, ""), message, key=len)
    if by_hand:  # such a kernel's other loops of this kind go over the lanes of a register
        by_hand |= {line for line, message in missed.items() if any(reason in message for reason in _NO_VECTOR)}
    missed = {
        line: _plain(message).replace("unsupported use in stmt", _ORDERED)
        for line, message in missed.items()
        if line not in by_hand | generated
    }
    ordered = [
        *((line, "missed", message) for line, message in sorted(missed.items()) if line not in vectorized),
        *((line, "vectorized", m) for line, m in sorted(vectorized.items()) if not m.startswith("basic block")),
        *((line, "vectorized", m) for line, m in sorted(vectorized.items()) if m.startswith("basic block")),
    ]
    return tuple(
        Remark(file=file, line=line, kind="missed" if kind == "missed" else "vectorized", message=message)
        for line, kind, message in ordered[:limit]
    )


def _loops(text: str, file: str) -> Iterator[tuple[int, str, str]]:
    """(line, optimized | missed, message) of the file's loops, a missed loop with its reason."""
    failed = 0
    for raw in text.splitlines():
        match = _LOOP.match(raw)
        if match is None:
            continue
        here = PurePosixPath(match["file"]).name == file
        line, kind, message = int(match["line"]), match["kind"], match["message"].strip()
        if kind == "optimized":
            failed = 0
            if here:
                yield line, kind, message
        elif message.startswith(_FAILED):
            failed = line if here else 0
            if here:
                yield line, kind, _FAILED
        elif failed:
            # The reason follows the failure, at the statement or in the header that the loop calls into.
            where = f" (line {line})" if here and line != failed else ""
            yield failed, "missed", f"{_FAILED}: {message}{where}"
            failed = 0


def _plain(message: str) -> str:
    """g++'s words for a reason, made readable."""
    call = re.search(
        r"statement clobbers memory: .*?\b(?:__builtin_)?(?P<name>\w+) \(.*?(?P<where> \(line \d+\))?$", message
    )
    if call:
        name = short_name(demangle(call["name"]))
        return f"{_FAILED}: it calls {name}, which has no vector version here{call['where'] or ''}"
    return re.sub(r"\.(?= \(line \d+\)$|$)", "", message.replace("not vectorized: ", ""))
