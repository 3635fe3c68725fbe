"""`show RUN` and `runs`: the trace, told to a person, as JSON, or as a file for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cudaforge.cli.output import Home, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from cudaforge.ports import Store
    from cudaforge.shapes import AttemptOutput, CallOutput, RoundOutput
    from cudaforge.store.sqlite import SqliteStore
    from cudaforge.trace import Run


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its unambiguous beginning, or `last`.")],
    round: Annotated[
        int | None, typer.Option("--round", min=0, help="One round, with its diff.", show_default="all")
    ] = None,
    prompts: Annotated[bool, typer.Option("--prompts", help="With the exact prompts and replies.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write all of it as one file for a browser, which needs no service and no network."
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show a run: its rounds, what was planned, what the machine found, what it cost."""
    from cudaforge import wiring
    from cudaforge.cli.output import emit, out
    from cudaforge.describe import call_output, round_output, run_output

    store = wiring.open_record(home)
    try:
        found = wiring.find_run(store, run)
        if html is not None:
            _write_html(store, found, html, json)
        elif round is not None:
            detail = round_output(store, found, round, prompts=prompts)
            if json:
                emit(detail)
            else:
                for part in _round(detail, whole=True):
                    out().print(part)
                _print_calls(detail.calls or ())
        elif json:
            emit(run_output(store, found, prompts=prompts))
        else:
            _print_run(store, found)
            if prompts:
                _print_calls([call_output(call) for call in store.calls(found.id)])
    finally:
        store.close()


def runs(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.")] = 30,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the runs, newest first."""
    from rich.table import Table
    from rich.text import Text

    from cudaforge import wiring, words
    from cudaforge.cli import output
    from cudaforge.describe import run_row
    from cudaforge.shapes import RunsOutput

    store = wiring.open_store(home)
    try:
        rows = [run_row(store, run) for run in store.runs(limit=limit)]
    finally:
        store.close()
    if json:
        output.emit(RunsOutput(runs=tuple(rows)))
        return
    if not rows:
        output.out().print("There is no run yet. Start one with: cudaforge demo")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "state", "task", "language", "coder", "rounds", "verified vs eager", "started"):
        table.add_column(
            name,
            justify="right" if name == "rounds" else "left",
            overflow="ellipsis",
            no_wrap=True,
            min_width=11 if name == "run" else None,  # an id that is cut short names nothing
        )
    for row in rows:
        result = words.interval(row.speedup.eager) if row.speedup else "no win" if row.state == "done" else "–"
        began = f"{row.created.astimezone():%Y-%m-%d %H:%M}"
        coder = words.one_line(words.short_model(row.coder), 40)
        cells = (row.id, row.state, row.task, row.language, coder, str(row.rounds), result, began)
        table.add_row(*(Text(cell) for cell in cells))
    output.out().print(table)


def _write_html(store: SqliteStore, run: Run, file: Path, json: bool) -> None:
    from cudaforge.cli.output import emit, out
    from cudaforge.shapes import ExportOutput
    from cudaforge_api.viewer.export import export_run

    data = export_run(store, run)
    file.write_bytes(data)
    if json:
        emit(ExportOutput(run=run.id, file=str(file), bytes=len(data)))
    else:
        out().print(f"Wrote run {run.id} to {file}.", markup=False, soft_wrap=True)


def _print_run(store: Store, run: Run) -> None:
    from rich.text import Text

    from cudaforge.cli import report
    from cudaforge.cli.output import out
    from cudaforge.describe import round_output, run_output
    from cudaforge.words import clean, stages

    console = out()
    whole = run_output(store, run)
    console.print(report.ending(store, run, None))
    if whole.stages_s:
        console.print(f"stages: {stages(whole.stages_s)}", soft_wrap=True)
    for note in report.notes(store, run):
        console.print(Text(f"note: {clean(note)}", "yellow"), soft_wrap=True)
    said = ""
    for attempt in whole.attempts:
        console.print()
        detail = round_output(store, run, attempt.round)
        why = detail.profile.unavailable if detail.profile else ""
        for part in _round(detail, whole=False, counters=why != said):
            console.print(part)
        said = why or said


def _round(detail: RoundOutput, *, whole: bool, counters: bool = True) -> list[RenderableType]:
    """One round: what was advised, what was found, and where `whole` the diff or the sources of a draft.

    `counters=False` leaves out why a profile has no counters: it was said before.
    """
    from rich.rule import Rule
    from rich.syntax import Syntax
    from rich.text import Text

    from cudaforge.cli import found
    from cudaforge.words import clean

    attempt = detail.attempt
    base = f" of {attempt.base}" if attempt.base else ""
    parts: list[RenderableType] = [Rule(Text(f"round {attempt.round}: {attempt.action}{base}"), align="left")]
    parts += [Text(line) for line in _advice(attempt)]
    if attempt.hint:
        parts.append(Text(f"the user asked for: {clean(attempt.hint)}"))
    if attempt.withdrawn:
        parts.append(Text("taken back before it was evaluated", "dim"))
    if attempt.reply_error:
        parts.append(Text(f"no kernel in the reply: {clean(attempt.reply_error)}", "red"))
    if detail.evaluation:
        parts.append(found.evaluation(detail.evaluation, provenance=whole))
    if attempt.measured_gain is not None:
        predicted = f" (predicted {attempt.predicted_gain:.2f}x)" if attempt.predicted_gain else ""
        parts.append(Text(f"gain over its base: {attempt.measured_gain:.2f}x{predicted}"))
    if detail.profile:
        workloads = [timing.workload for timing in detail.evaluation.workloads] if detail.evaluation else []
        parts.append(found.profile(detail.profile, workloads, counters=counters))
    if whole and detail.diff:
        parts.append(Syntax(clean(detail.diff), "diff", word_wrap=True))
    elif whole:
        for name, text in detail.files.items():
            parts.append(Text(name, "bold"))
            parts.append(Syntax(clean(text), "python" if name.endswith(".py") else "cuda", word_wrap=True))
    return parts


def _advice(attempt: AttemptOutput) -> list[str]:
    from cudaforge.words import clean

    if plan := attempt.plan:
        lines = [f"plan: {plan.method}", f"  bottleneck: {plan.bottleneck}"]
        lines += [f"  evidence: {e.metric} = {e.value}" for e in plan.evidence]
        lines += [f"  {number}. {step}" for number, step in enumerate(plan.steps, 1)]
    elif diagnosis := attempt.diagnosis:
        lines = [f"diagnosis: {diagnosis.critical_issue}", f"  why it matters: {diagnosis.why_it_matters}"]
        lines.append(f"  fix: {diagnosis.minimal_fix_hint}")
    else:
        lines = []
    return [clean(line) for line in lines]


def _print_calls(calls: Sequence[CallOutput]) -> None:
    from cudaforge.cli.output import out
    from cudaforge.words import clean, dollars

    for call in calls:
        out().rule(f"{call.key}: {call.purpose} by {call.model}, {call.state}, {dollars(call.cost_usd)}", align="left")
        for message in call.messages:
            out().print(f"---- {message.role} ----", style="bold")
            typer.echo(clean(message.content))
        out().print("---- reply ----", style="bold")
        typer.echo(clean(call.reply if call.reply is not None else call.error or "(none)"))
