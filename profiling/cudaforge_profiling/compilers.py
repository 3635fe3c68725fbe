"""What nvcc, ptxas, g++ and the linker said, as data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Literal

from cudaforge_profiling.demangle import demangle, short_name
from cudaforge_profiling.types import Frozen

Severity = Literal["error", "warning", "note"]


class CompilerMessage(Frozen):
    """One message. `file` is as the compiler printed it; line and column are 1-based, 0 where there is none."""

    severity: Severity
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source_line: str = ""
    tool: str = ""
    """nvcc, ptxas, nvlink, g++ or ld."""


_SEVERITIES: dict[str, Severity] = {
    "error": "error",
    "fatal": "error",
    "fatal error": "error",
    "catastrophic error": "error",
    "internal error": "error",
    "sorry, unimplemented": "error",
    "internal compiler error": "error",
    "warning": "warning",
    "note": "note",
    "remark": "note",
    "info": "note",
}
_KINDS = "|".join(sorted(map(re.escape, _SEVERITIES), key=len, reverse=True))

# kernel.cu(12): error #20: identifier "x" is undefined
_EDG = re.compile(rf"^(?P<file>[^\s(][^(]*)\((?P<line>\d+)\): (?P<kind>{_KINDS})(?: #[\d-]+[-D]*)?: (?P<message>.*)$")
# kernel.cpp:12:3: error: 'x' was not declared in this scope
_GNU = re.compile(rf"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:(?P<column>\d+):)? (?P<kind>{_KINDS}): +(?P<message>.*)$")
# ptxas /tmp/k.ptx, line 27; error   : Not a name of any known instruction
_PTX = re.compile(rf"^ptxas (?P<file>[^,]+), line (?P<line>\d+); (?P<kind>{_KINDS}) *: (?P<message>.*)$")
# ptxas error   : ... / nvcc fatal   : ... / nvlink warning : ...
_STAGE = re.compile(rf"^(?P<tool>ptxas|nvcc|nvlink|fatbinary|cudafe\+\+) (?P<kind>{_KINDS}) *: (?P<message>.*)$")
# g++: fatal error: Killed signal terminated program cc1plus
_DRIVER = re.compile(rf"^(?P<tool>[\w.+/-]*(?:g\+\+|gcc|cc1plus|c\+\+)[\w.-]*): (?P<kind>{_KINDS}): (?P<message>.*)$")
# /usr/bin/ld: k.o: in function `f': / k.cpp:(.text+0x5): undefined reference to `g()'
_LINKER = re.compile(
    r"^(?:(?:.*/)?ld(?:\.\w+)?: )?(?:(?P<file>[^:()]+):)?(?:(?P<line>\d+)|\([^)]*\))?:? ?"
    r"(?P<message>(?:undefined reference to|multiple definition of|cannot find) .*)$"
)
_UNINTERESTING = re.compile(
    r"^(?:Ptx assembly aborted due to errors|Compiling entry function|Function properties|Used \d+ registers"
    r"|Compile time|\d+ bytes (?:gmem|stack frame|cmem))"
)
_MANGLED = re.compile(r"\b_Z\w+")


def parse_nvcc(text: str) -> list[CompilerMessage]:
    """Messages in the output of nvcc and of what it runs (ptxas, nvlink, the host compiler), in order, each once.

    ptxas knows only the PTX that nvcc generated, so its messages name no line of the kernel, and say so. ptxas's
    hints on lost performance (`(C7508)` and such) come as warnings.
    """
    return _unique(_messages(text))


def parse_gxx(text: str) -> list[CompilerMessage]:
    """Messages in the output of g++ and the linker, in order, each once. Vectorisation remarks are not among them."""
    return _unique(_messages(text))


def _unique(messages: Iterator[CompilerMessage]) -> list[CompilerMessage]:
    return list(dict.fromkeys(messages))


def _messages(text: str) -> Iterator[CompilerMessage]:
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if match := _EDG.match(line):
            # The first line of the excerpt is the source, the second its caret.
            follow = _block(lines, at + 1)
            source, column = _excerpt(follow)
            yield CompilerMessage(
                severity=_SEVERITIES[match["kind"]],
                message=_with_context(match["message"].strip(), follow),
                file=match["file"],
                line=int(match["line"]),
                column=column,
                source_line=source,
                tool="nvcc",
            )
        elif match := _GNU.match(line):
            yield CompilerMessage(
                severity=_SEVERITIES[match["kind"]],
                message=match["message"].strip(),
                file=match["file"],
                line=int(match["line"]),
                column=int(match["column"] or 0),
                source_line=_quoted(lines, at + 1),
                tool="g++",
            )
        elif match := _PTX.match(line):
            yield CompilerMessage(
                severity=_SEVERITIES[match["kind"]],
                message=f"{_demangled(match['message'])} (line {match['line']} of the generated PTX, not of kernel.cu)",
                tool="ptxas",
            )
        elif match := _STAGE.match(line):
            severity, message = _SEVERITIES[match["kind"]], match["message"].strip()
            if severity == "note" and not re.match(r"\(C\d+\)", message):
                continue
            if not _UNINTERESTING.match(message):
                severity = "warning" if severity == "note" else severity
                yield CompilerMessage(severity=severity, message=_demangled(message), tool=match["tool"])
        elif match := _DRIVER.match(line):
            yield CompilerMessage(severity=_SEVERITIES[match["kind"]], message=match["message"].strip(), tool="g++")
        elif match := _LINKER.match(line):
            file = match["file"] or ""
            yield CompilerMessage(
                severity="error",
                message=match["message"].strip(),
                file="" if file.endswith((".o", ".so", ".a")) else file,
                line=int(match["line"] or 0),
                tool="ld",
            )


def _block(lines: list[str], start: int) -> list[str]:
    """The indented lines that belong to a message of nvcc's front end."""
    end = start
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    return lines[start:end]


def _excerpt(block: list[str]) -> tuple[str, int]:
    for source, caret in itertools.pairwise(block):
        if caret.strip() == "^":
            # The excerpt is indented by two. Where macros such as __global__ are shown expanded, columns are not
            # those of the file.
            column = 0 if "__attribute__((" in source else caret.index("^") - 1
            return source[2:].rstrip().strip(), column
    return "", 0


def _with_context(message: str, block: list[str]) -> str:
    """A template's message with the chain of instantiations that led to it."""
    for at, line in enumerate(block):
        if line.strip().startswith("detected during"):
            return f"{message} ({'; '.join(part.strip() for part in block[at:])})".replace("during:;", "during")
    return message


def _quoted(lines: list[str], at: int) -> str:
    """The source in g++'s excerpt: `   12 |   int x = y;`."""
    match = re.match(r"^ *\d+ \|(.*)$", lines[at]) if at < len(lines) else None
    return match[1].strip() if match else ""


def _demangled(message: str) -> str:
    return _MANGLED.sub(lambda match: short_name(demangle(match[0])), message.strip())
