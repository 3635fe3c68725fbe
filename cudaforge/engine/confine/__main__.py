"""`python -m cudaforge.engine.confine`: enters a cage and becomes a program."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

from cudaforge.engine.confine.cage import Cage
from cudaforge.engine.confine.enter import enter


def main(arguments: list[str]) -> None:
    """Enters a cage and becomes the given program, or reports the layers and ends."""
    parser = argparse.ArgumentParser(prog="cudaforge.engine.confine", description=main.__doc__)
    parser.add_argument("--cage", required=True, type=Cage.from_json)
    parser.add_argument("--report-fd", type=int, help="the layers go there, as a JSON list")
    parser.add_argument("--pid-fd", type=int, help="the caged process's pid goes there")
    parser.add_argument("--parent", type=int, help="pid of whoever starts this: nothing runs once that has ended")
    parser.add_argument("--unprivileged", action="store_true", help="what a normal user gets, also for root")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(arguments)
    if options.command and not options.cage.programs:
        parser.error("a cage without programs cannot become one")
    privileged = False if options.unprivileged else None
    layers = enter(options.cage, pid_fd=options.pid_fd, parent=options.parent, privileged=privileged)
    if options.report_fd is not None:
        os.write(options.report_fd, json.dumps(layers).encode() + b"\n")
        if options.report_fd > sys.stderr.fileno():
            os.close(options.report_fd)
    if options.command:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores them, and programs would inherit that
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        try:
            os.execvp(options.command[0], options.command)
        except OSError as error:
            sys.exit(f"{options.command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
