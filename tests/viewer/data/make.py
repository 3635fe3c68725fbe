"""Makes home.tar.gz, the recorded runs that the viewer's tests look at.

    .venv/bin/python tests/viewer/data/make.py

About nine minutes on two cores. Four runs, all through the real graph, with the examples' recorded replies:

- row_softmax (cpp), seven rounds on this machine's processor: a build error, a wrong result, five that pass, a win;
- cross_entropy (cpp), two rounds: no kernel passes, so there is no win;
- layer_norm_bias (cpp) with `manual:` models, whose first reply was given: it waits for its Judge;
- gemm_bias_gelu (cuda), whose evaluations, profiles and verification an H100 gave: gemm_bias_gelu-h100.json.gz holds
  its answers (measure.py), which come after the time that they took there.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from cudaforge import wiring
from cudaforge.evaluation import Baseline, Evaluation, Verification
from cudaforge.kernel import Language
from cudaforge.store.pack import pack
from cudaforge.task import Task
from cudaforge.trace import Budget, RunSpec
from cudaforge_profiling.types import Profile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
RECORDINGS = ROOT / "examples" / "recordings"
PLACES = ("/opt/cudaforge", "/home/user/.cudaforge")
"""What stands in the recorded home in place of the paths of this checkout and of the home itself."""


Answer = TypeVar("Answer", Baseline, Evaluation, Profile, Verification)


class Measured:
    """An Evaluator that says what a GPU's evaluator said, after the time that it took."""

    def __init__(self, path: Path) -> None:
        self.answers = {(a["kind"], a["kernel"]): a for a in json.loads(gzip.decompress(path.read_bytes()))}

    async def _answer(self, request: Any, shape: type[Answer]) -> Answer:
        answer = self.answers[request.kind, request.kernel.id if hasattr(request, "kernel") else ""]
        await asyncio.sleep(answer["seconds"])
        return shape.model_validate_json(json.dumps(answer["result"]))

    async def baseline(self, request: Any) -> Baseline:
        return await self._answer(request, Baseline)

    async def evaluate(self, request: Any) -> Evaluation:
        return await self._answer(request, Evaluation)

    async def profile(self, request: Any) -> Profile:
        return await self._answer(request, Profile)

    async def verify(self, request: Any) -> Verification:
        return await self._answer(request, Verification)

    async def close(self) -> None: ...


def cudaforge(home: Path, *arguments: object, expected: tuple[int, ...] = (0,)) -> None:
    """Runs a command of CudaForge's on this home."""
    command = [sys.executable, "-m", "cudaforge", *map(str, arguments), "--home", str(home)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode not in expected:
        raise SystemExit(f"{command} ended with {done.returncode}")


def optimize(home: Path, task: str, rounds: int, model: str, *expected: int) -> None:
    """One run on this machine's processor."""
    path = ROOT / "examples" / "tasks" / f"{task}.py"
    options = ["--language", "cpp", "--evaluator", "local:cpu", "--output", home.parent / f"kernel_{task}"]
    cudaforge(home, "optimize", path, "--coder", model, "--rounds", rounds, *options, expected=expected)


def on_gpu(home: Path) -> None:
    """The CUDA run."""
    recording = f"recorded:{RECORDINGS / 'gemm_bias_gelu-cuda'}"
    task = Task.load(ROOT / "examples" / "tasks" / "gemm_bias_gelu.py")
    models = {"coder": recording, "judge": recording}
    spec = RunSpec(task=task, language=Language.CUDA, **models, evaluator="local:cuda", budget=Budget(rounds=7))
    store = wiring.open_record(home)
    asyncio.run(wiring.optimize(spec, store, home, Measured(HERE / "gemm_bias_gelu-h100.json.gz")))
    store.close()


def without_paths(home: Path) -> None:
    """Takes the places where this checkout and the home happen to lie out of every text."""
    with closing(sqlite3.connect(home / "cudaforge.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            texts = [name for _, name, kind, *_ in columns if kind.upper().startswith(("TEXT", "VARCHAR", "JSON"))]
            for column in texts:
                for old, new in zip((str(ROOT), str(home)), PLACES, strict=True):
                    connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
        connection.commit()
        connection.execute("VACUUM")


def main() -> None:
    """Runs them all and packs the home."""
    with tempfile.TemporaryDirectory(prefix="cudaforge-") as folder:
        home = Path(folder) / "home"
        optimize(home, "cross_entropy", 2, f"recorded:{RECORDINGS / 'cross_entropy-cpp'}", 4)
        optimize(home, "row_softmax", 7, f"recorded:{RECORDINGS / 'row_softmax-cpp'}", 0, 4)
        optimize(home, "layer_norm_bias", 3, "manual:", 5)
        cudaforge(home, "reply", "last", "--file", RECORDINGS / "layer_norm_bias-cpp" / "coder-00.md")
        cudaforge(home, "resume", "last", expected=(5,))
        on_gpu(home)
        without_paths(home)
        packed = Path(folder) / "home.tar.gz"
        pack(home, packed)
        shutil.copyfile(packed, HERE / "home.tar.gz")


if __name__ == "__main__":
    main()
