"""How texts and numbers enter a prompt.

A task, a compiler and a kernel can print anything, so what they wrote is data: `fence` puts it between fences
that are longer than any run of backticks inside, `inline` makes one short line of it. Both drop terminal
escapes and cap the length; what is cut is said in place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
# C0 and C1 controls other than tab and newline, bidirectional overrides, and surrogates, which have no UTF-8.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FENCE_LIMIT = 60_000


def clean(text: object) -> str:
    """`text` without terminal escapes and control characters, with newlines as newlines."""
    plain = ANSI.sub("", str(text).replace("\r\n", "\n"))
    return CONTROLS.sub("\ufffd", plain.replace("\r", "\n"))


def clip(text: str, limit: int) -> str:
    """At most about `limit` characters: head and tail, with a note of what was left out between them.

    Cuts at line ends where they are near, so that no half line looks like a whole one.
    """
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-(limit - limit // 2) :]
    if (cut := head.rfind("\n")) > len(head) // 2:
        head = head[:cut]
    if 0 <= (cut := tail.find("\n")) < len(tail) // 2:
        tail = tail[cut + 1 :]
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n[... {left_out:,} characters left out here ...]\n{tail}"


def fence(text: object, info: str = "", limit: int = FENCE_LIMIT) -> str:
    """A fenced block that its content cannot close: its fence is longer than any run of backticks inside."""
    body = clip(clean(text).strip("\n"), limit)
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{info}\n{body}\n{ticks}"


def inline(text: object, limit: int = 300) -> str:
    """One line of at most `limit` characters without backticks, to stand inside a sentence."""
    line = " ".join(clean(text).split()).replace("`", "'")
    return line if len(line) <= limit else line[: limit - 6] + " [...]"


def numbered(text: str) -> str:
    """`text` with the line numbers that a compiler would give (only newlines count as line ends)."""
    lines = clean(text).rstrip("\n").split("\n")
    width = len(str(len(lines)))
    return "\n".join(f"{number:{width}d} | {line}".rstrip() for number, line in enumerate(lines, 1))


def time(us: float) -> str:
    """Microseconds in words: `8.4 us`, `6.85 ms`, `1.32 s`."""
    for scale, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= scale:
            return f"{_digits(us / scale)} {unit}"
    return f"{_digits(us)} us"


def size(count: float) -> str:
    """Bytes in words, in powers of 1024: `50 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{_digits(value)} {unit}"
        value /= 1024
    return f"{_digits(value)} TiB"


def si(value: float) -> str:
    """A number with a prefix of powers of 1000, to be followed by its unit: `3.02 T`."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{_digits(value / scale)} {prefix}"
    return f"{_digits(value)} "


def percent(share: float) -> str:
    """A share of 1 in per cent: `41.1 %`."""
    return f"{share * 100:.1f} %"


def factor(value: float) -> str:
    """A speedup: `1.48x`."""
    return f"{value:.3g}x" if value < 100 else f"{value:.0f}x"


def count(value: int, noun: str) -> str:
    """`1 core`, `132 cores`."""
    return f"{value} {noun}" + ("" if value == 1 else "s")


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    decimals = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:.0f}"


FILTERS: dict[str, Callable[..., Any]] = {
    "clip": clip,
    "count_of": count,
    "factor": factor,
    "fence": fence,
    "inline": inline,
    "numbered": numbered,
    "percent": percent,
    "si": si,
    "size": size,
    "time": time,
}
