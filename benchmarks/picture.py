"""Draws a finished run as the terminal shows it, as SVG: the picture in the README.

.venv/bin/python benchmarks/picture.py --home HOME --output docs/images/run.svg RUN
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich.console import Console

from cudaforge import wiring
from cudaforge.cli.report import ending


def main() -> None:
    """Reads the store, writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("run")
    arguments = parser.parse_args()
    store = wiring.open_store(arguments.home)
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True)
    console.print(ending(store, wiring.find_run(store, arguments.run), None))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    svg = console.export_svg(title="cudaforge optimize", unique_id="run")
    # Without rich's web fonts: a page that shows the picture fetches nothing.
    arguments.output.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
    store.close()


if __name__ == "__main__":
    main()
