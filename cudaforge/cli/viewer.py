"""`view`: the trace viewer in a browser, for as long as the command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cudaforge.cli.output import Home, Json


def view(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run's id, its unambiguous beginning, or `last`.",
            show_default="the list of all runs",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1.", show_default="one that is free")
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    home: Home = None,
    json: Json = False,
) -> None:
    """Look at runs in the browser, live while they go on, until Ctrl-C. It carries out no runs: `serve` does."""
    import threading
    import webbrowser

    from cudaforge import wiring
    from cudaforge.cli.output import emit, err
    from cudaforge.shapes import ViewOutput
    from cudaforge_api.serve import bind, serve
    from cudaforge_api.settings import Settings

    folder = wiring.resolve_home(home)
    path = "/"
    if run is not None:
        store = wiring.open_store(folder)
        try:
            path = f"/runs/{wiring.find_run(store, run).id}"
        finally:
            store.close()
    listening = bind("127.0.0.1", port)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}{path}"
    if json:
        emit(ViewOutput(url=url, home=str(folder)))
        sys.stdout.flush()
    err().print(f"CudaForge shows {folder} on {url} until Ctrl-C.", soft_wrap=True, markup=False)
    if browser:  # beside the server: some browsers run until they are closed. The socket takes its request already.
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    serve(Settings(home=folder), listening, 0, ())
