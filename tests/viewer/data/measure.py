"""Measures the example's recorded CUDA kernels on a GPU, for `make.py` to replay where there is none.

    python tests/viewer/data/measure.py tests/viewer/data/gemm_bias_gelu-h100.json.gz

Needs CudaForge installed, nvcc and ncu. Every number is the engine's: this script asks it what a run would ask, in the
same order.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cudaforge.agents.coder import parse_kernel
from cudaforge.engine.local import LocalEvaluator
from cudaforge.evaluation import BaselineRequest, EvaluateRequest, ProfileRequest, VerifyRequest
from cudaforge.kernel import Language
from cudaforge.task import Task

ROOT = Path(__file__).resolve().parents[3]
TASK = "gemm_bias_gelu"
REPORTS = 1
"""How many of the profiler's reports are kept: they are large, and one is enough to be downloaded."""


async def measure(evaluator: LocalEvaluator) -> list[dict[str, Any]]:
    """Baseline, each kernel of the recording with its profile, and the verification of the fastest."""
    task = Task.load(ROOT / "examples" / "tasks" / f"{TASK}.py")
    answers: list[dict[str, Any]] = []
    reports = 0

    async def ask(method: Any, request: Any) -> Any:
        nonlocal reports
        began = time.monotonic()
        result = await method(request)
        answer = json.loads(result.model_dump_json())
        if answer.get("report"):
            reports += 1
            answer["report"] = answer["report"] if reports <= REPORTS else None
        kernel = request.kernel.id if hasattr(request, "kernel") else ""
        answers.append({"kind": request.kind, "kernel": kernel, "seconds": time.monotonic() - began, "result": answer})
        return result

    await ask(evaluator.baseline, BaselineRequest(key="baseline", task=task))
    passed = []
    for number, path in enumerate(sorted((ROOT / "examples" / "recordings" / f"{TASK}-cuda").glob("coder-*.md"))):
        kernel = parse_kernel(path.read_text(), Language.CUDA)
        evaluation = await ask(evaluator.evaluate, EvaluateRequest(key=f"evaluate{number}", task=task, kernel=kernel))
        if evaluation.passed:
            passed.append((evaluation.time_us, number, kernel))
            time_us = evaluation.workloads[0].kernel.median_us
            request = ProfileRequest(key=f"profile{number}", task=task, kernel=kernel, time_us=time_us)
            await ask(evaluator.profile, request)
    await ask(evaluator.verify, VerifyRequest(key="verify", task=task, kernel=min(passed)[2]))
    return answers


async def main(output: Path) -> None:
    """Writes what the engine said."""
    with tempfile.TemporaryDirectory() as home:
        evaluator = LocalEvaluator(Path(home), "cuda:0")
        try:
            answers = await measure(evaluator)
        finally:
            await evaluator.close()
    output.write_bytes(gzip.compress(json.dumps(answers).encode(), mtime=0))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
