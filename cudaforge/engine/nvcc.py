"""nvcc's host pass and its device pass side by side; nvcc itself runs one after the other.

`nvcc --dryrun` prints the programs that it would run, as a shell would have them. The front ends of both passes parse
all headers, and need nothing of one another but a name for the module, which the host pass makes up and the device pass
reads: here both read one that is made up beforehand. Where the list does not look as expected, nvcc does it itself.
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from pathlib import Path

from cudaforge.engine.sandbox import environment

PROGRAMS = ("E", "cudafe++", "E", "cicc", "ptxas", "fatbinary")
"""The first steps for one architecture, `E` being the preprocessor: the first two are the host's, the others the
device's. What follows needs both."""
SETTING = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
MAKES_ID = "--gen_module_id_file "
MODULE_ID = re.compile(r'--module_id_file_name "([^"]+)"')


def side_by_side(command: list[str]) -> list[str] | None:
    """A call of /bin/sh that does what this call of nvcc does, in the folder for temporary files that it finds in its
    environment (TMPDIR); None where the passes cannot be told apart. Its errors may come twice, once from each pass."""
    try:
        # In the environment of the compiler's cage, so that variables of nvcc's own count for neither or for both.
        done = subprocess.run(
            [*command, "--dryrun"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
            env=environment(Path("/tmp")),
        )
        return _apart(done.stderr) if not done.returncode else None
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):  # a line that no shell would take
        return None


def _apart(listed: str) -> list[str] | None:
    lines = [line.removeprefix("#$ ") for line in listed.splitlines() if line.startswith("#$ ")]
    settings = [found.groups() for line in lines if (found := SETTING.fullmatch(line))]
    steps = [line for line in lines if not SETTING.fullmatch(line) and not line.startswith("rm ")]
    first = steps[: len(PROGRAMS)]
    made = MODULE_ID.search(first[1]) if len(first) == len(PROGRAMS) else None
    if made is None or MAKES_ID not in first[1] or tuple(map(_program, first)) != PROGRAMS:
        return None
    if any(_program(step) in PROGRAMS[:4] for step in steps[len(PROGRAMS) :]):
        return None  # a second architecture
    host = " && ".join([first[0], first[1].replace(MAKES_ID, "")])
    script = [
        "set -e",
        *(f"export {name}={shlex.quote(value)}" for name, value in settings),
        'cd "$TMPDIR"',
        f"printf %s _{secrets.token_hex(4)}_cudaforge > {made[1]}",
        f"{{ {host}; }} > host.log 2>&1 & host=$!",
        f"{{ {' && '.join(first[2:])}; }} > device.log 2>&1 || failed=1",
        "wait $host || failed=1",
        "cat host.log device.log >&2",  # in nvcc's own order, and no line within another
        'test -z "$failed"',
        *steps[len(PROGRAMS) :],
    ]
    return ["/bin/sh", "-c", "\n".join(script).replace("/tmp/tmpxft_", "./tmpxft_")]


def _program(step: str) -> str:
    words = shlex.split(step)
    name = Path(words[0]).name
    return "E" if name not in PROGRAMS and "-E" in words else name
