"""`serve`, `worker`, `token`: the service, the processes that do its work, and who may use it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from cudaforge.cli.output import Home, Json
from cudaforge.errors import UsageError

WHO, MUCH = "Who may ask, and for what", "How much"
token_app = typer.Typer(help="Who may use the service: make, list and revoke bearer tokens.", no_args_is_help=True)


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=64, help="Worker processes to keep running; 0: start them yourself.")
    ] = 1,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="Jobs at a time, for each worker.")] = 4,
    require_token: Annotated[
        bool, typer.Option("--require-token", help="On loopback, too.", rich_help_panel=WHO)
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name of a service without tokens.", rich_help_panel=WHO),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="What runs may name; * fits anything. Repeat it.",
            show_default="manual:, recorded:*, and openai:* on loopback",
            rich_help_panel=WHO,
        ),
    ] = None,
    evaluator: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluator",
            help="Where kernels may run; the first is the default. Repeat it.",
            show_default="local",
            rich_help_panel=WHO,
        ),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option("--recordings", help="A folder whose recordings runs may name.", rich_help_panel=WHO),
    ] = None,
    max_rounds: Annotated[int, typer.Option("--max-rounds", min=1, max=1000, rich_help_panel=MUCH)] = 100,
    max_usd: Annotated[
        float | None,
        typer.Option("--max-usd", min=0.0001, help="Of a run with a networked model.", rich_help_panel=MUCH),
    ] = None,
    max_active: Annotated[
        int, typer.Option("--max-active", min=1, help="Jobs under way, for each token.", rich_help_panel=MUCH)
    ] = 100,
    max_queued: Annotated[
        int, typer.Option("--max-queued", min=1, help="Jobs that wait, of all.", rich_help_panel=MUCH)
    ] = 1000,
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve runs over HTTP: submit, follow live, fetch results. See docs/service.md.

    On loopback nobody needs a token; any other address demands one, see `cudaforge token create`.

    SIGTERM ends it gently: runs under way go back into the queue, and on with the next start.
    """
    from cudaforge import wiring
    from cudaforge.cli.output import emit, err
    from cudaforge.jobs import Bounds
    from cudaforge.shapes import ServeOutput
    from cudaforge_api.serve import bind
    from cudaforge_api.serve import serve as run
    from cudaforge_api.settings import Limits, Settings

    folder = wiring.resolve_home(home)
    evaluators = tuple(evaluator or ["local"])
    for spec in evaluators:
        wiring.evaluator_of(spec)
    settings = Settings(
        home=folder,
        host=host,
        port=port,
        require_token=require_token,
        allowed_hosts=tuple(allowed_host or ()),
        evaluators=evaluators,
        recordings=recordings.expanduser().absolute() if recordings else None,
        limits=Limits(rounds=max_rounds, usd=max_usd, queue=Bounds(queued=max_queued, active=max_active)),
    )
    offered = tuple(model or ("manual:", "recorded:*", *(["openai:*"] if settings.on_loopback else [])))
    settings = settings.model_copy(
        update={"models": offered, "require_token": require_token or not settings.on_loopback}
    )
    if settings.require_token:
        record = wiring.open_record(folder)
        try:
            if not any(token.revoked is None for token in record.tokens.list()):
                raise UsageError(
                    f"{host} demands tokens, and there is none yet.", "Make one: cudaforge token create NAME"
                )
        finally:
            record.close()
    listening = bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/api/v1"
    if json:
        emit(ServeOutput(url=url, home=str(folder), workers=workers, token_required=settings.require_token))
        sys.stdout.flush()
    token = "a token is required" if settings.require_token else "no token is needed on this machine"
    by = f"{workers} worker{'s' * (workers != 1)}"
    pages = url.removesuffix("/api/v1")
    err().print(f"CudaForge serves {folder} on {pages} (API: {url}) with {by}; {token}.", soft_wrap=True, markup=False)
    command = [sys.executable, "-m", "cudaforge", "worker", "--slots", str(slots), "--home", str(folder)]
    run(settings, listening, workers, command)


def worker(
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="Jobs at a time.")] = 4,
    drain: Annotated[
        float,
        typer.Option("--drain", min=0, help="Seconds that jobs get after SIGTERM before they are requeued."),
    ] = 20.0,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Carry out what the service's queue holds. Start as many as you like, on the machine that has the home."""
    import asyncio

    from cudaforge import wiring
    from cudaforge.cli.output import emit
    from cudaforge.shapes import WorkerOutput
    from cudaforge.worker import QueueWorker, work

    def say(line: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)

    async def run() -> None:
        made = QueueWorker(wiring.resolve_home(home), slots=slots, drain_s=drain, say=say)
        say(f"worker {made.info.id} takes up to {slots} jobs at a time")
        await work(made, parent=parent)
        say(f"worker {made.info.id} ended")
        if json:
            emit(WorkerOutput(id=made.info.id, jobs=made.jobs))

    asyncio.run(run())


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will use it.")],
    scope: Annotated[
        Literal["read", "submit", "admin"],
        typer.Option("--scope", help="read: see everything. submit: also start runs. admin: also change others'."),
    ] = "submit",
    max_active: Annotated[
        int | None, typer.Option("--max-active", min=1, help="Its jobs under way.", show_default="the service's limit")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a token and print it. It is shown this once; only a hash of it is kept."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, err
    from cudaforge.jobs import Scope
    from cudaforge.shapes import NewTokenOutput

    record = wiring.open_record(home)
    try:
        token, secret = record.tokens.create(name, Scope(scope), max_active)
    finally:
        record.close()
    if json:
        emit(NewTokenOutput(id=token.id, name=token.name, scope=token.scope, token=secret))
        return
    typer.echo(secret)
    err().print(f"Token {token.id} of {token.name!r}, scope {scope}. It is not shown again.", markup=False)


@token_app.command("list")
def token_list(home: Home = None, json: Json = False) -> None:
    """List tokens, never their secrets."""
    from rich.table import Table

    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import TokenOutput, TokensOutput
    from cudaforge.words import clean

    record = wiring.open_record(home)
    try:
        rows = [TokenOutput.model_validate(token.model_dump()) for token in record.tokens.list()]
    finally:
        record.close()
    if json:
        emit(TokensOutput(tokens=tuple(rows)))
        return
    if not rows:
        out().print("There is no token. Make one with: cudaforge token create NAME")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "name", "scope", "created", "last used", "state"):
        table.add_column(column)
    for row in rows:
        used = f"{row.last_used:%Y-%m-%d %H:%M}" if row.last_used else "never"
        state = f"revoked {row.revoked:%Y-%m-%d}" if row.revoked else "in use"
        table.add_row(row.id, clean(row.name), row.scope.value, f"{row.created:%Y-%m-%d}", used, state)
    out().print(table)


@token_app.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id or name.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """End a token: from the next request on it counts for nothing."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import TokenOutput

    record = wiring.open_record(home)
    try:
        revoked = record.tokens.revoke(token)
    finally:
        record.close()
    if json:
        emit(TokenOutput.model_validate(revoked.model_dump()))
    else:
        out().print(f"Revoked {revoked.id} ({revoked.name}).", markup=False)
