"""How a run that rests is told to a person, and its exit code."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from cudaforge import words
from cudaforge.cli.view import RoundsTable, header
from cudaforge.describe import eager_us, verification_of
from cudaforge.errors import ExitCode
from cudaforge.evaluation import Verification
from cudaforge.follow import RunView, reference_line, spending
from cudaforge.ports import Store
from cudaforge.trace import Run, RunState


def exit_code(run: Run) -> ExitCode:
    """What `optimize`, `demo` and `resume` return for a run at rest."""
    if run.state is RunState.DONE:
        return ExitCode.OK if run.outcome and run.outcome.win else ExitCode.NO_WIN
    if run.state is RunState.SUSPENDED:
        return ExitCode.SUSPENDED
    return ExitCode.INTERRUPTED if run.state is RunState.STOPPED else ExitCode.INFRASTRUCTURE


def ending(store: Store, run: Run, folder: Path | None) -> RenderableType:
    """The rounds, the verified result, the kernel's folder, what was spent, and where the trace is."""
    view = RunView(store, run)
    view.catch_up()
    parts: list[RenderableType] = [header(view.run), ""]
    if view.baseline:
        parts += [reference_line(view.baseline), ""]
    if view.attempts:
        best = run.outcome.best if run.outcome and run.outcome.best else view.best
        parts += [RoundsTable(list(view.attempts.values()), best or ""), ""]
    parts += [Text(line, style) for line, style in conclusion(store, run)]
    if folder:
        parts += _how_to_import(folder)
    parts.append(spending(view))
    parts.append(f"run {run.id}, trace: cudaforge show {run.id}")
    return Group(*parts)


def notes(store: Store, run: Run) -> list[str]:
    """What a reader of the run must know: retries, calls booked as uncertain, scaled-down checks."""
    view = RunView(store, run)
    view.catch_up()
    return view.notes


def conclusion(store: Store, run: Run) -> list[tuple[str, str]]:
    """What came out, as lines with their style."""
    outcome = run.outcome
    if run.state is RunState.SUSPENDED:
        return [
            (f"Suspended: waits for {run.waiting_for}.", "yellow"),
            (f"See `cudaforge pending {run.id}`, then `cudaforge resume {run.id}`.", ""),
        ]
    if run.state is RunState.FAILED:
        return [(f"Failed: {words.one_line(run.error, 400)}", "red"), (f"`cudaforge resume {run.id}` continues.", "")]
    if run.state is RunState.STOPPED:
        between = run.head is not None
        return [("A session between two steps." if between else "Stopped before its end.", "yellow")]
    if outcome is None:
        return [("Still running, or cut off.", "yellow"), (f"`cudaforge resume {run.id}` continues it.", "")]
    why = f" ({words.one_line(outcome.reason, 160)})" if outcome.reason else ""
    verification = verification_of(store, run)
    if not outcome.win or outcome.speedup is None:
        lines = [(f"No win found{why}: no kernel was verified to be faster than eager PyTorch.", "bold yellow")]
        if verification:
            lines += [(words.why_no_win(verification), ""), *_warning(verification)]
        return lines
    lines = [(f"Verified{why}:", "bold green")]
    lines.append((f"  {words.interval(outcome.speedup.eager)} over eager PyTorch", "bold green"))
    if outcome.speedup.compile:
        lines.append((f"  {words.interval(outcome.speedup.compile)} over torch.compile", "bold green"))
    if verification:
        evaluation = verification.evaluation
        if evaluation.share_of_floor is not None:
            lines.append((f"  {words.floors(evaluation.share_of_floor)}, an estimate for this device and task", ""))
        if evaluation.time_us is not None:
            beside = f", eager beside it {words.microseconds(eager)}" if (eager := eager_us(evaluation)) else ""
            lines.append((f"  {words.microseconds(evaluation.time_us)} a call{beside}", ""))
        if verification.aa:
            lines.append((f"  noise, the reference against itself: {words.interval(verification.aa)}", "dim"))
        lines += _warning(verification)
    lines.append(("  in brackets: 95 % intervals", "dim"))
    return lines


def _warning(verification: Verification) -> list[tuple[str, str]]:
    said = words.noise_warning(verification)
    return [(f"Warning: {said}", "bold yellow")] if said else []


def _how_to_import(folder: Path) -> list[RenderableType]:
    """Where the kernel is and the line that imports it from the current folder."""
    try:
        relative = folder.absolute().relative_to(Path.cwd())
    except ValueError:
        relative = None
    if relative is not None and all(part.isidentifier() for part in relative.parts):
        line = f"from {'.'.join(relative.parts)} import ModelNew"
    else:
        line = f"import sys; sys.path.insert(0, {str(folder.absolute().parent)!r}); from {folder.name} import ModelNew"
    return [Text.assemble("kernel: ", (str(folder), "bold")), f"        {escape(line)}"]
