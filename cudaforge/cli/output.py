"""How the command speaks: JSON on stdout, progress and errors on stderr, numbers written one way everywhere."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from cudaforge.errors import CudaForgeError
    from cudaforge.evaluation import Interval

JSON_KEY = "cudaforge.json"
UNKNOWN = "unknown"
SYMBOLS = {
    "PASSED": ("✓", "green"),
    "BUILD_FAILED": ("✗", "red"),
    "RUNTIME_ERROR": ("✗", "red"),
    "TIMEOUT": ("⧗", "red"),
    "INCORRECT": ("≠", "yellow"),
    "REJECTED": ("⊘", "magenta"),
    "INFRASTRUCTURE": ("!", "yellow"),
}
# Terminal escapes, control characters other than newline and tab, and lone surrogates, which no terminal takes.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _remember_json(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[JSON_KEY] = value  # the error handler in app.py reads it
    return value


Json = Annotated[
    bool, typer.Option("--json", callback=_remember_json, help="Print one JSON object on stdout, nothing else.")
]
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="CUDAFORGE_HOME", help="Where runs are kept.", show_default="~/.cudaforge"),
]
EvaluatorOption = Annotated[
    str, typer.Option("--evaluator", help="Where kernels run: local, local:cpu, local:cuda:0 or spool:DIR.")
]


def out() -> Console:
    """The console for results, on stdout. Wide where it is not a terminal, so that tables in logs stay whole."""
    return _console(stderr=False)


def err() -> Console:
    """The console for progress and errors, on stderr."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or os.environ.get("COLUMNS") else 140
    return Console(stderr=stderr, width=wide, highlight=False, emoji=False)


def emit(shape: BaseModel) -> None:
    """Prints a shape as JSON on stdout."""
    from cudaforge.shapes import to_json

    typer.echo(to_json(shape, indent=2))


def print_error(error: CudaForgeError, as_json: bool) -> None:
    """One sentence and a hint on stderr; with --json an ErrorOutput on stdout as well."""
    from rich.text import Text

    console = err()
    console.print(Text.assemble(("Error: ", "bold red"), clean(error.message)), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("Hint: ", "bold"), clean(error.hint)), soft_wrap=True)
    if as_json:
        from cudaforge.shapes import ErrorOutput

        emit(ErrorOutput(error=error.message, hint=error.hint, exit_code=int(error.exit_code)))


def busy(words: str) -> AbstractContextManager[object]:
    """Shows on a terminal's stderr that something long is under way."""
    console = err()
    return console.status(words) if console.is_terminal else nullcontext()


def clean(text: str) -> str:
    """Text of a model or a candidate without terminal escapes and other control characters."""
    return _CONTROL.sub("", text).expandtabs(4)


def one_line(text: str, width: int = 88) -> str:
    """The text on one line of at most `width` characters."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def short_model(spec: str) -> str:
    """A model as a line has room for it: of a recording the folder's name, not its path."""
    provider, _, name = spec.partition(":")
    return f"{provider}:{Path(name).name}" if provider == "recorded" else spec


def duration(seconds: float) -> str:
    """`20 ms`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 03 min`."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def microseconds(value: float | None) -> str:
    """`12.34 µs`, `1.234 ms`, `–` for None: four significant digits."""
    if value is None:
        return "–"
    for unit, size in (("µs", 1.0), ("ms", 1e3), ("s", 1e6)):
        if value < 1000 * size or unit == "s":
            return f"{significant(value / size)} {unit}"
    raise AssertionError  # the loop ends with seconds


def significant(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, never in exponent form for 1e-3 .. 1e9."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text


def times(value: float | None) -> str:
    """`2.31x`, `–` for None."""
    return "–" if value is None else f"{value:.2f}x"


def floors(share: float) -> str:
    """`1.63x the floor's time` for a `share_of_floor`; below 1x the kernel is faster than the floor estimates."""
    return f"{times(1 / share)} the floor's time"


def interval(value: Interval | None) -> str:
    """`2.31x [2.28, 2.35]`, the bracket being the 95 % interval."""
    return "–" if value is None else f"{value.value:.2f}x [{value.low:.2f}, {value.high:.2f}]"


def dollars(usd: float | None) -> str:
    """`$0.0123`; a price that is not known is said to be so."""
    return UNKNOWN if usd is None else "$0" if usd == 0 else f"${usd:.4f}"


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def size(value: int) -> str:
    """`12.3 MB`, powers of 1000."""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError  # the loop ends with GB
