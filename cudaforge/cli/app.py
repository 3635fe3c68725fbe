"""All commands by name, and the one place where an error becomes a sentence and an exit code.

Only typer loads here; a command imports what it needs when it runs, so `cudaforge --help` stays fast and an
evaluator host needs neither langgraph nor openai nor sqlmodel.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cudaforge.cli import doctor, evaluate, optimize, replies, selftest, service, show, upkeep, viewer
from cudaforge.cli.output import JSON_KEY, print_error
from cudaforge.errors import CudaForgeError, ExitCode, InfrastructureError

EXIT_CODES = (
    "Exit codes: 0 done (evaluate, profile: PASSED; optimize, demo, resume: a verified win), "
    "1 any other verdict on the kernel (evaluate, profile), 2 the input is not usable, "
    "3 a failure of the machine, of the model or of ours, 4 the run ended without a verified win, "
    "5 waiting for a reply or an evaluation, 130 interrupted."
)


class _Commands(TyperGroup):
    """Turns our errors into one sentence, a hint and an exit code; never a traceback without CUDAFORGE_DEBUG=1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CudaForgeError as error:
            if _debugging():
                raise
            print_error(error, bool(ctx.meta.get(JSON_KEY)))
            raise typer.Exit(int(error.exit_code)) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
        except OSError as error:
            if _debugging() or isinstance(error, BrokenPipeError):
                raise
            where = f"{error.filename}: " if error.filename else ""
            failure = InfrastructureError(f"{where}{error.strerror or error}.", "Check the path, its rights and space.")
            print_error(failure, bool(ctx.meta.get(JSON_KEY)))
            raise typer.Exit(int(failure.exit_code)) from None
        except Exception as error:
            # Typer's own (bad options, Exit) pass through; the rest is a mistake of ours, told in one sentence.
            if _debugging() or type(error).__module__.split(".")[0] in ("typer", "click"):
                raise
            failure = InfrastructureError(
                f"Internal error, {type(error).__name__}: {error}.",
                "Set CUDAFORGE_DEBUG=1 to see where, and report it please.",
            )
            print_error(failure, bool(ctx.meta.get(JSON_KEY)))
            raise typer.Exit(int(failure.exit_code)) from None


app = typer.Typer(
    cls=_Commands,
    name="cudaforge",
    help="Turns a PyTorch module into a verified, faster kernel.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        from cudaforge import __version__

        typer.echo(f"cudaforge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


RUNS, MACHINE, SERVICE = "Runs", "Kernels and machines", "The service"
app.command(rich_help_panel=RUNS)(optimize.optimize)
app.command(rich_help_panel=RUNS)(optimize.demo)
app.command(rich_help_panel=RUNS)(optimize.resume)
app.command(rich_help_panel=RUNS)(show.show)
app.command(rich_help_panel=RUNS)(show.runs)
app.command(rich_help_panel=RUNS)(viewer.view)
app.command(rich_help_panel=RUNS)(replies.pending)
app.command(rich_help_panel=RUNS)(replies.reply)
app.command(rich_help_panel=MACHINE)(evaluate.evaluate)
app.command(rich_help_panel=MACHINE)(evaluate.profile)
app.command(rich_help_panel=MACHINE)(upkeep.evaluator)
app.command(rich_help_panel=MACHINE)(doctor.doctor)
app.command(rich_help_panel=MACHINE)(selftest.selftest)
app.command(rich_help_panel=MACHINE)(upkeep.pack)
app.command(rich_help_panel=MACHINE)(upkeep.gc)
app.command(rich_help_panel=SERVICE)(service.serve)
app.command(rich_help_panel=SERVICE)(service.worker)
app.add_typer(service.token_app, name="token", rich_help_panel=SERVICE)


def _debugging() -> bool:
    return os.environ.get("CUDAFORGE_DEBUG", "") not in ("", "0")


def run() -> None:
    """Runs the command line of this process and exits."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a table must not fail on a terminal without UTF-8
    app()
