"""`pending` and `reply`: a person, or another agent, plays a `manual:` model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cudaforge.cli.output import Home, Json
from cudaforge.errors import UsageError

MAX_REPLY_BYTES = 4 << 20


def pending(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Show this run's prompt whole.", show_default="all runs")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List what suspended runs wait for; with RUN, print the prompt that is to be answered."""
    from rich.table import Table

    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.describe import pending_item
    from cudaforge.shapes import PendingOutput
    from cudaforge.trace import RunState
    from cudaforge.words import clean

    store = wiring.open_store(home)
    try:
        runs = [wiring.find_run(store, run)] if run else store.runs(limit=1_000_000)
        found = [item for r in runs if r.state is RunState.SUSPENDED and (item := pending_item(store, r))]
    finally:
        store.close()
    if json:
        emit(PendingOutput(pending=tuple(found)))
        return
    if not found:
        out().print(f"Run {runs[0].id} waits for nothing." if run else "Nothing is pending.")
        return
    if run and found[0].kind == "reply":
        for message in found[0].messages:
            out().print(f"---- {message.role} ----", style="bold")
            typer.echo(clean(message.content))
        typer.echo(err=True)
        typer.echo(f"Answer it with: cudaforge reply {found[0].run} --file reply.md", err=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "task", "waits for", "since", "what to do"):
        table.add_column(name, overflow="fold")
    for item in found:
        what, todo = f"{item.role}: {item.purpose}", f"cudaforge pending {item.run}"
        if item.kind == "evaluation":
            what, todo = f"evaluation {item.key}", f"run an evaluator, then cudaforge resume {item.run}"
        table.add_row(item.run, item.task, what, f"{item.since:%Y-%m-%d %H:%M}", todo)
    out().print(table)


def reply(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its unambiguous beginning, or `last`.")],
    file: Annotated[str, typer.Option("--file", help="The reply as text; - reads standard input.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Answer the prompt that RUN waits at; `cudaforge resume RUN` then goes on."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import ReplyOutput

    text = _read(file)
    store = wiring.open_record(home)
    try:
        found = wiring.find_run(store, run)
        call = store.queue.reply(found.id, text)
        job = store.queue.job(found.id)
    finally:
        store.close()
    onward = "a worker goes on with it" if job else f"go on with: cudaforge resume {found.id}"
    if json:
        emit(ReplyOutput(run=found.id, key=call.key, role=call.role.value, characters=len(text)))
    else:
        out().print(f"Stored as the {call.role.value}'s reply; {onward}", soft_wrap=True)


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_REPLY_BYTES + 1) if file == "-" else Path(file).read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", "--file names the reply; - is stdin.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The reply in {file} is not UTF-8 text.") from None
    if len(data) > MAX_REPLY_BYTES:
        raise UsageError(f"The reply is larger than {MAX_REPLY_BYTES} bytes.")
    if not text.strip():
        raise UsageError("The reply is empty.", "Write what the model would answer into the file.")
    return text
