"""What the exploit suite found, drawn for a person."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cudaforge import words
from cudaforge.selftest.run import Count, Report


def draw(report: Report, *, partial: bool = False) -> RenderableType:
    """Every case that went wrong, then counts per class and per layer, and what has no case on this device."""
    parts: list[RenderableType] = []
    wrong = [row for finding, row in zip(report.findings, report.table(), strict=True) if not finding.ok]
    if wrong:
        table = Table("case", "classes", "outcome", "what was said", title="Went wrong", title_justify="left")
        for name, numbers, outcome, said, _ in wrong:
            table.add_row(name, numbers, Text(outcome, "bold red"), Text(words.clean(said)[:300]))
        parts.append(table)
    parts += [_counts("class", report.by_class()), _counts("layer", report.by_layer())]
    honest = [finding for finding in report.findings if finding.kind == "honest"]
    exploits = len(report.findings) - len(honest)
    parts.append(
        Text(
            f"{report.count('caught')} of {exploits} exploits caught, {report.count('right')} of {len(honest)} honest "
            f"kernels passed, {report.count('infrastructure')} failures of the machine or of ours",
            "bold green" if not wrong else "bold red",
        )
    )
    if not partial:
        parts += [
            Text(f"no case here: {u.number} {u.name}: {u.reason or 'none written'}", "dim") for u in report.uncovered
        ]
    return Group(*parts)


def _counts(what: str, counts: list[Count]) -> Table:
    table = Table(what, box=None, pad_edge=False)
    for name in ("caught", "missed", "wrongly rejected"):
        table.add_column(name, justify="right")
    for count in counts:
        missed = Text(str(count.missed or ""), "bold red")
        table.add_row(count.name, str(count.caught or ""), missed, Text(str(count.wrongly_rejected or ""), "bold red"))
    return table
