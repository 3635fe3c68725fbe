"""`selftest`: the exploit suite against an evaluator."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from cudaforge.cli.output import EvaluatorOption, Home, Json
from cudaforge.errors import ExitCode, UsageError

TRIALS, TIME_BUDGET_S, RUN_TIMEOUT_S = 6, 0.01, 10.0


def selftest(
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Which half of the suite.")
    ] = "auto",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A case by name, or a class by number; may be repeated.")
    ] = None,
    naive: Annotated[
        bool, typer.Option("--naive", help="Also ask a conventional in-process check, which the exploits fool.")
    ] = False,
    evaluator: EvaluatorOption = "local",
    home: Home = None,
    json: Json = False,
) -> None:
    """Run the exploit suite: kernels that cheat must be caught, honest ones must pass.

    Nothing in it harms the machine. Exit code: 0 none missed and no honest kernel rejected, 1 otherwise,
    3 infrastructure.
    """
    from rich.text import Text

    from cudaforge import wiring
    from cudaforge.cli.output import emit, err, out
    from cudaforge.evaluation import EvaluateOptions
    from cudaforge.selftest import cases, run
    from cudaforge.words import clean

    half: cases.Device = "cuda" if device == "cuda" or (device == "auto" and wiring.gpu_count() > 0) else "cpu"
    chosen = [case for case in cases.load(half) if not only or _wanted(case, only)]
    if not chosen:
        raise UsageError(
            f"no case is named {', '.join(only or [])}.", "Names: the folders of cudaforge/selftest/suite."
        )
    # Cases on one task follow one another, so that its reference is started once.
    chosen.sort(key=lambda case: (case.task.name, case.name))
    options = EvaluateOptions(
        trials=TRIALS, time_budget_s=TIME_BUDGET_S, run_timeout_s=RUN_TIMEOUT_S, compile_baseline=False
    )
    name = f"local:{half}" if evaluator == "local" else evaluator

    def say(line: str) -> None:
        err().print(Text(clean(line)))

    async def whole() -> run.Report:
        engine = wiring.make_evaluator(name, wiring.resolve_home(home))
        try:
            slots = getattr(engine, "slots", None)  # other evaluators do one after the other
            at_once = await slots() if slots else 1
            return await run.run(engine, chosen, options, naive=naive, at_once=at_once, say=say)
        finally:
            await engine.close()

    report = asyncio.run(whole())
    if json:
        emit(report)
    else:
        from cudaforge.cli import report_selftest

        out().print(report_selftest.draw(report, partial=bool(only)))
    if report.count("infrastructure"):
        raise typer.Exit(int(ExitCode.INFRASTRUCTURE))
    if not all(finding.ok for finding in report.findings):
        raise typer.Exit(1)


def _wanted(case: object, only: list[str]) -> bool:
    from cudaforge.selftest.cases import Case

    assert isinstance(case, Case)
    return case.name in only or any(str(number) in only for number in case.classes)
