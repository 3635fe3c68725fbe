"""`cudaforge` as users run it: a process, an OpenAI-compatible server, a real compiler, real measurements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fake_openai import FakeOpenAI, Slow, by_model
from support.scripted import diagnosis_reply
from support.spool_server import serving

from cudaforge.errors import ExitCode
from cudaforge.evaluation import Evaluation
from cudaforge.shapes import RunOutput

TASK = """import torch
from torch import nn

n = 1 << 21

class Model(nn.Module):
    def forward(self, x):
        y = x * 2.0 + 1.0
        y = torch.relu(y - 0.5) * 3.0
        return torch.clamp(y, max=4.0) + x

def get_inputs():
    return [torch.randn(n)]

def get_init_inputs():
    return []
"""

MODEL_PY = """import torch
from torch import nn

from .kernel import chain


class ModelNew(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        chain(x, out)
        return out
"""

KERNEL_CPP = """// Where operations might trap, a compiler without AVX-512 keeps the branches and does not vectorise.
#pragma GCC optimize("no-trapping-math")
#include <algorithm>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static void chain_floats(const float* __restrict__ x, float* __restrict__ out, int64_t n) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    float y = x[i] * 2.0f + 1.0f;
    y = std::max(y - 0.5f, 0.0f) * 3.0f;
    out[i] = std::min(y, 4.0f) + x[i];
  }
}

void chain(TensorView x, TensorView out) {
  chain_floats(static_cast<const float*>(x.data_ptr()), static_cast<float*>(out.data_ptr()), out.numel());
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(chain, chain);
"""


def reply(kernel: str) -> str:
    return f"`kernel.cpp`:\n```cpp\n{kernel}```\n\n`model.py`:\n```python\n{MODEL_PY}```\n"


BROKEN = reply(KERNEL_CPP.replace("std::min(y, 4.0f)", "std::min(y, oops)"))
RIGHT = reply(KERNEL_CPP)
WRONG_CPP = KERNEL_CPP.replace("4.0f) + x[i]", "4.0f) - x[i]")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from cudaforge.cli import main; main()", *map(str, arguments)]


@pytest.fixture
def environment(tmp_path: Path, cudaforge_home: Path) -> dict[str, str]:
    return {**os.environ, "CUDAFORGE_HOME": str(cudaforge_home), "OPENAI_API_KEY": "sk-secret", "NO_COLOR": "1"}


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "chain.py"
    path.write_text(TASK)
    return path


@pytest.mark.timeout(900)
def test_optimize_against_a_server_makes_a_verified_kernel_that_can_be_imported(
    tmp_path: Path, task_file: Path, environment: dict[str, str]
) -> None:
    replies = {"coder": [BROKEN, RIGHT], "judge": [diagnosis_reply()]}
    models = ["--coder", "openai:coder", "--judge", "openai:judge", "--rounds", "2", "--language", "cpp"]
    with FakeOpenAI(by_model(replies)) as server:
        done = subprocess.run(
            command("optimize", task_file, *models, "--base-url", server.url, "--json"),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        prompts = [json.dumps(request.body) for request in server.requests]
    assert done.returncode == ExitCode.OK, done.stderr
    run = RunOutput.model_validate_json(done.stdout)

    assert [a.verdict for a in run.attempts] == ["BUILD_FAILED", "PASSED"]
    assert run.win and run.speedup and run.speedup.eager.low > 1
    assert "oops" in prompts[1] and len(prompts) == 3
    assert run.tokens.output > 0 and run.cost_usd is None  # the price of `coder` is in no list
    assert "What leaves this machine: prompts to openai:coder, openai:judge" in done.stderr
    assert "sk-secret" not in done.stdout + done.stderr + "".join(prompts)
    folder = Path(run.kernel_folder or "")
    assert folder.parent == Path("cudaforge_kernels") and (tmp_path / folder / "kernel.cpp").is_file()

    use = (
        f"import torch; from cudaforge_kernels.{folder.name} import ModelNew; x = torch.zeros(3); print(ModelNew()(x))"
    )
    used = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert "1.5" in used.stdout

    # The baseline is cached by now, so a wrong kernel is soon found out.
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "model.py").write_text(MODEL_PY)
    (wrong / "kernel.cpp").write_text(WRONG_CPP)
    judged = subprocess.run(
        command("evaluate", task_file, wrong, "--json"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert judged.returncode == ExitCode.NEGATIVE, judged.stderr
    evaluation = Evaluation.model_validate_json(judged.stdout)
    assert evaluation.verdict == "INCORRECT" and evaluation.stages_s and evaluation.isolation


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_cleanly_and_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path, task_file: Path, environment: dict[str, str]
) -> None:
    """The model is asked for a reply that takes long; the scripted evaluator is behind a spool."""
    arguments = ["optimize", task_file, "--coder", "openai:m", "--language", "module", "--rounds", "1"]
    with (
        FakeOpenAI([Slow(60.0, "late")]) as server,
        serving(tmp_path / "spool"),
        subprocess.Popen(
            command(*arguments, "--base-url", server.url, "--evaluator", f"spool:{tmp_path / 'spool'}"),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not server.requests and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "Traceback" not in out + err
    assert err.rstrip().splitlines()[-1].startswith("Stopped; `cudaforge resume r")
    shown = subprocess.run(
        command("show", "last", "--json", "--prompts"), env=environment, capture_output=True, text=True, check=True
    )
    run = RunOutput.model_validate_json(shown.stdout)
    assert run.state == "stopped" and run.calls and run.calls[0].state == "uncertain"


def test_a_refused_key_stops_the_run_at_once_with_one_sentence(
    tmp_path: Path, task_file: Path, environment: dict[str, str]
) -> None:
    arguments = ["optimize", task_file, "--coder", "openai:m", "--language", "module", "--rounds", "1"]
    with FakeOpenAI([], key="another") as server, serving(tmp_path / "spool"):
        done = subprocess.run(
            command(*arguments, "--base-url", server.url, "--evaluator", f"spool:{tmp_path / 'spool'}"),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.INFRASTRUCTURE
    assert "Error: " in done.stderr and "resume" in done.stderr and "Traceback" not in done.stderr
    assert "sk-secret" not in done.stderr
