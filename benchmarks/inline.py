"""How long the extensions of `module` kernels build: torch's load_inline as it is, and with the slim headers.

    python benchmarks/inline.py --out benchmarks/results/NAME/inline.json

Three sources as kernels in a single file have them (tests/support/extensions.py), for sm_90, each built both ways in
turn on this machine: compile and link, as load_inline does it, with nothing kept from before. Needs nvcc and no GPU.
Where torch is its CPU build, stand-ins take the place of the libraries and headers that it lacks: the plain build then
parses somewhat less than with a torch for CUDA, and is timed up to the import of what it has built.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "profiling"), str(ROOT / "tests")]

from support.extensions import CUDA, cuda_builds  # noqa: E402

from cudaforge.engine import inline  # noqa: E402


def seconds_to_build(name: str, folder: Path, arguments: dict[str, Any]) -> float:
    """One call of load_inline, under the folder's name; what is built must be there afterwards."""
    import torch
    import torch.utils.cpp_extension as extension

    source, declaration = CUDA[name]
    folder.mkdir(parents=True)
    fresh = {key: list(value) for key, value in arguments.items()}
    started = time.monotonic()
    try:
        extension.load_inline(
            folder.name, [declaration], [source], functions=[name], build_directory=str(folder), **fresh
        )
    except ImportError:
        if torch.version.cuda is not None:  # the stand-ins export less than a plain build asks for
            raise
    spent = time.monotonic() - started
    if not (folder / f"{folder.name}.so").is_file():
        raise SystemExit(f"{name} was not built")
    return spent


def main() -> None:
    """Builds, prints a line for each source and the ratio of all, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=1, help="builds of each kind; the median counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    import torch
    import torch.utils.cpp_extension as extension

    plain = extension._write_ninja_file_and_build_library
    rows = []
    with tempfile.TemporaryDirectory() as scratch, cuda_builds(Path(scratch) / "stand-ins") as arguments:
        for name in CUDA:
            seconds: dict[str, list[float]] = {"plain": [], "slim": []}
            for turn in range(options.repeat):
                for how, spent in seconds.items():
                    extension._write_ninja_file_and_build_library = plain
                    if how == "slim":
                        inline.accelerate()
                    folder = Path(scratch) / f"{name}_{how}_{turn}"
                    spent.append(seconds_to_build(name, folder, arguments))
                    if how == "slim":
                        record = json.loads((folder / f"{folder.name}.built.json").read_text())
                        if record["how"] != "slim":
                            raise SystemExit(f"{name} took the plain path: {record['why']}")
            row: dict[str, Any] = {how: round(statistics.median(spent), 2) for how, spent in seconds.items()}
            row |= {"source": name, "ratio": round(row["plain"] / row["slim"], 1)}
            rows.append(row)
            print(f"{name:12} plain {row['plain']:7.2f} s   slim {row['slim']:6.2f} s   {row['ratio']:5.1f} times")
    total = {how: round(sum(row[how] for row in rows), 2) for how in ("plain", "slim")}
    ratio = round(total["plain"] / total["slim"], 1)
    print(f"{'all':12} plain {total['plain']:7.2f} s   slim {total['slim']:6.2f} s   {ratio:5.1f} times")
    if options.out:
        compiler = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
        about = {
            "torch": torch.__version__,
            "nvcc": next(line for line in compiler.splitlines() if "release" in line),
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "arch": os.environ.get("TORCH_CUDA_ARCH_LIST", "9.0"),
            "stand-ins for CUDA's libraries": torch.version.cuda is None,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"about": about, "sources": rows, "total": {**total, "ratio": ratio}}, indent=1)
        )


if __name__ == "__main__":
    main()
