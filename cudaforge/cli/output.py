"""How the command speaks: JSON on stdout, progress and errors on stderr, in the words of cudaforge.words."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from cudaforge.errors import CudaForgeError

JSON_KEY = "cudaforge.json"


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

    from cudaforge.words import clean

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
