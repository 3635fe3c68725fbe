"""`evaluator`, `pack`, `gc`: what keeps machines and homes going."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cudaforge.cli.output import Home, Json


def evaluator(
    spool: Annotated[Path, typer.Option("--spool", metavar="DIR", help="The shared folder.")],
    drain: Annotated[bool, typer.Option("--drain", help="End when no request waits.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda:0.")] = "auto",
    name: Annotated[str, typer.Option("--name", help="In the folder.", show_default="the host's")] = "",
    lease: Annotated[
        float, typer.Option("--lease", min=1, help="Seconds of silence after which others take its request over.")
    ] = 90.0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve the evaluations that runs with `--evaluator spool:DIR` ask for, on this machine."""
    from cudaforge import wiring

    def say(line: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)

    folder = spool.expanduser().absolute()
    code = wiring.serve_spool(folder, device, wiring.resolve_home(home), drain=drain, lease_s=lease, name=name, say=say)
    if json:
        from cudaforge.cli.output import emit
        from cudaforge.shapes import EvaluatorOutput

        emit(EvaluatorOutput(spool=str(folder), drained=code == 0))
    raise typer.Exit(code)


def pack(
    output: Annotated[
        Path | None,
        typer.Option("--output", help="A .tar.gz, or a new folder.", show_default="./cudaforge-DATE-TIME.tar.gz"),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Copy the home consistently, even while runs are writing: databases and artefacts, not caches."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, err, out
    from cudaforge.shapes import PackOutput
    from cudaforge.words import size

    packed = wiring.pack_home(home, output or Path(time.strftime("cudaforge-%Y%m%d-%H%M%S.tar.gz")))
    if packed.missing:
        err().print(f"Not in the pack, lost or damaged: {', '.join(packed.missing)}", style="yellow", soft_wrap=True)
    if json:
        emit(
            PackOutput(
                output=str(packed.output),
                runs=packed.runs,
                artifacts=packed.artifacts,
                bytes=packed.bytes,
                missing=packed.missing,
            )
        )
    else:
        what = f"{packed.runs} runs, {packed.artifacts} artefacts, {size(packed.bytes)} before compression"
        out().print(f"{packed.output}: {what}", soft_wrap=True, markup=False)


def gc(
    older_than: Annotated[float, typer.Option("--older-than", metavar="DAYS", help="Age in days.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, say what would go.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Delete old profiler reports and cached builds. Runs, prompts, replies and results always stay."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import GcOutput
    from cudaforge.words import size

    freed = wiring.collect_garbage(home, older_than, dry_run)
    if json:
        emit(
            GcOutput(
                dry_run=freed.dry_run,
                reports=freed.reports,
                builds=freed.builds,
                leftovers=freed.leftovers,
                bytes=freed.bytes,
            )
        )
    else:
        verb = "would free" if dry_run else "freed"
        out().print(
            f"{verb} {size(freed.bytes)}: {freed.reports} reports, {freed.builds} builds, {freed.leftovers} leftovers"
        )
