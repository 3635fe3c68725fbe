"""The `cudaforge` command. `app.py` lists the commands; each loads what it needs only when it runs."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
    from cudaforge.cli.app import run

    run()
