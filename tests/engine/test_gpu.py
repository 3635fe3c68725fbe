"""Verdicts on a GPU: real nvcc, IPC memory, sticky errors, ncu. Run with `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tasks import MODEL_PY, SCALE_ADD, module, scale_add

from cudaforge.engine.baseline import Stages
from cudaforge.engine.builder import Built
from cudaforge.engine.hosts import Host
from cudaforge.engine.sanitizer import Findings
from cudaforge.engine.session import Session, alone
from cudaforge.engine.supervisor import Supervisor
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest, Evaluation, ProfileRequest, Verdict, VerifyRequest
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task
from cudaforge_profiling.report import to_frame
from cudaforge_profiling.types import Profile

pytestmark = pytest.mark.gpu

KERNEL_CU = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <cuda_runtime.h>
using tvm::ffi::TensorView;

__global__ void scale_add_kernel(const float* x, const float* w, const float* y, float* out, long n, int columns) {
  long i = blockIdx.x * (long)blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] * w[i % columns] + y[i];
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  cudaStream_t s = (cudaStream_t)TVMFFIEnvGetStream(x.device().device_type, x.device().device_id);
  long n = x.numel();
  scale_add_kernel<<<(n + 255) / 256, 256, 0, s>>>((const float*)x.data_ptr(), (const float*)w.data_ptr(),
                                                   (const float*)y.data_ptr(), (float*)out.data_ptr(), n, x.size(1));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
"""

TRITON_PY = """
import torch
import triton
import triton.language as tl
from torch import nn

@triton.jit
def kernel(x, w, y, out, n, columns, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    r = tl.load(x + i, m) * tl.load(w + i % columns, m) + tl.load(y + i, m)
    tl.store(out + i, r, m)

class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        out = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 1024),)](x, self.weight, y, out, x.numel(), x.shape[1], BLOCK=1024)
        return out
"""

QUICK = EvaluateOptions(trials=2, time_budget_s=0.05, run_timeout_s=30)
RIGHT = "return x * self.weight + y"


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    made = Supervisor(Path(tmp_path_factory.mktemp("gpu-home")), "cuda:0")
    yield made
    made.close()


def cuda(source: str = KERNEL_CU) -> Kernel:
    return Kernel.of(Language.CUDA, {"kernel.cu": source, "model.py": MODEL_PY})


LIBRARIES = scale_add(allow_libraries=True)


def evaluate(supervisor: Supervisor, kernel: Kernel, options: EvaluateOptions = QUICK) -> Evaluation:
    task = LIBRARIES if kernel.language is Language.MODULE else scale_add()
    found = supervisor.handle(EvaluateRequest(key="k", task=task, kernel=kernel, options=options))
    assert isinstance(found, Evaluation)
    return found


def test_a_right_cuda_kernel_passes(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, cuda())
    assert found.passed, found.reason
    assert found.build is not None and found.build.entry_functions
    assert found.device.kind == "cuda" and found.device.ceilings.copy_bytes_per_s
    assert found.time_us is not None and 0.5 < found.time_us < 1000
    timing = found.workloads[0]
    assert "gate" in timing.kernel.clock and timing.aids["events_us"].value > 0
    assert timing.attribution is not None and timing.attribution.own > 0.99, timing.attribution


def test_the_work_of_pytorch_is_no_custom_kernel(supervisor: Supervisor) -> None:
    request = EvaluateRequest(key="k", task=scale_add(), kernel=module(RIGHT), options=QUICK)
    found = supervisor.handle(request)
    assert isinstance(found, Evaluation)
    assert (found.verdict, found.rule) == (Verdict.REJECTED, "no custom kernel"), found.reason


def test_a_right_triton_kernel_passes(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, Kernel.of(Language.TRITON, {"model.py": TRITON_PY}))
    assert found.passed, found.reason


def test_a_build_failure_names_the_line(supervisor: Supervisor) -> None:
    source = KERNEL_CU.replace("if (i < n)", "if (i < m)")
    found = evaluate(supervisor, cuda(source))
    assert found.verdict is Verdict.BUILD_FAILED
    first = found.diagnostics[0]
    assert (first.file, first.tool) == ("kernel.cu", "nvcc") and '"m"' in first.message
    assert "if (i < m)" in source.splitlines()[first.line - 1] == first.source_line


def test_a_lost_tail_is_described(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, cuda(KERNEL_CU.replace("(n + 255) / 256, 256", "n / 512, 256")))
    assert found.verdict is Verdict.INCORRECT
    assert found.correctness is not None and "NaN" in found.correctness.errors[0].pattern


def test_an_illegal_access_is_a_runtime_error_and_the_next_kernel_is_right(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, cuda(KERNEL_CU.replace("out[i] = x[i]", "out[i + (1L << 40)] = x[i]")))
    assert found.verdict is Verdict.RUNTIME_ERROR
    assert "illegal" in found.reason.lower() or "CUDA error" in found.reason
    assert evaluate(supervisor, cuda()).passed


def test_an_endless_kernel_times_out_and_the_next_is_right(supervisor: Supervisor) -> None:
    endless = KERNEL_CU.replace("  if (i < n)", "  while (((volatile float*)out)[0] != 12345.f) {}\n  if (i < n)")
    found = evaluate(supervisor, cuda(endless), QUICK.model_copy(update={"run_timeout_s": 10.0}))
    assert (found.verdict, found.rule) == (Verdict.TIMEOUT, "check")
    assert evaluate(supervisor, cuda()).passed


def test_work_on_a_side_stream_that_nobody_joins_is_not_right(supervisor: Supervisor) -> None:
    forward = (
        "out = torch.empty_like(x)\n"
        "self.s = getattr(self, 's', None) or torch.cuda.Stream()\n"
        "with torch.cuda.stream(self.s):\n"
        "    torch.cuda._sleep(200_000_000)\n"
        "    torch.addcmul(y, x, self.weight, out=out)\n"
        "return out"
    )
    assert evaluate(supervisor, module(forward)).verdict is Verdict.INCORRECT


def test_a_neighbour_of_lent_memory_cannot_be_read(supervisor: Supervisor) -> None:
    """A pointer beyond the lent allocation faults: nothing else of the supervisor is mapped behind it."""
    beyond = KERNEL_CU.replace("x[i] * w", "x[i + (2L << 20) / 4] * w")
    assert evaluate(supervisor, cuda(beyond)).verdict in (Verdict.RUNTIME_ERROR, Verdict.INCORRECT)


def test_the_profile_sees_the_candidates_own_launches(supervisor: Supervisor) -> None:
    request = ProfileRequest(key="p", task=scale_add(), kernel=cuda(), options=QUICK, time_us=5.0)
    found = supervisor.handle(request)
    assert isinstance(found, Profile)
    assert not found.unavailable, found.unavailable
    own = [launch for launch in found.launches if launch.own]
    assert [launch.name for launch in own] == ["scale_add_kernel"]
    assert own[0].metrics["dram__bytes_read.sum"].value and found.report
    assert list(to_frame(found.launches)["name"]) == [launch.name for launch in found.launches]
    assert any(remark.kind == "resource" for remark in found.remarks)


def test_the_papers_metric_set_says_what_it_substituted(supervisor: Supervisor) -> None:
    request = ProfileRequest(key="q", task=scale_add(), kernel=cuda(), options=QUICK, metric_set="paper")
    found = supervisor.handle(request)
    assert isinstance(found, Profile) and not found.unavailable
    assert len(found.launches[0].metrics) >= 20 and found.notes


ONE_LINE = "  if (i < n) out[i] = x[i] * w[i % columns] + y[i];"
ACROSS_WARPS = """
  __shared__ float row[256];
  row[threadIdx.x] = i < n ? x[i] : 0.f;
  float other = row[(threadIdx.x + 32) % 256];
  if (i < n) out[i] = x[i] * w[i % columns] + y[i] + (other > 1e30f ? 1.f : 0.f);
"""
"""Another warp's value is read without a barrier; it never counts."""
BEYOND = KERNEL_CU.replace("float* out, long n", "float* out, float* scratch, long n")
BEYOND = BEYOND.replace(ONE_LINE, f"{ONE_LINE}\n  if (i == 0) scratch[n] = 1.f;")
BEYOND = BEYOND.replace(
    "  scale_add_kernel<<<", "  float* scratch;\n  cudaMalloc(&scratch, n * 4);\n  scale_add_kernel<<<"
)
BEYOND = BEYOND.replace("(float*)out.data_ptr(), n", "(float*)out.data_ptr(), scratch, n")


def sanitized(supervisor: Supervisor, kernel: Kernel) -> tuple[Findings, float]:
    """What compute-sanitizer says of a kernel, and in how many seconds."""
    stages = Stages()
    built = supervisor._build(kernel, QUICK, stages, {})
    assert isinstance(built, Built)
    found = supervisor._sanitize(scale_add(), kernel, built, QUICK, stages)
    return found, stages.seconds["sanitizer"]


def test_the_sanitizers_tools_run_side_by_side_and_find_what_is_wrong(supervisor: Supervisor) -> None:
    right, seconds = sanitized(supervisor, cuda())
    assert (right.error, right.notes) == ("", ())
    print(f"both tools over a small kernel: {seconds:.1f} s")
    racing, _ = sanitized(supervisor, cuda(KERNEL_CU.replace(ONE_LINE, ACROSS_WARPS)))
    assert not racing.error and any(note.startswith("racecheck: ") and "kernel.cu:" in note for note in racing.notes)
    found, _ = sanitized(supervisor, cuda(BEYOND))
    assert found.error.startswith("memcheck: Invalid __global__ write") and found.file == "kernel.cu"
    assert "scratch[n] = 1.f" in BEYOND.splitlines()[found.line - 1]


def test_eager_against_itself_is_a_tie(supervisor: Supervisor) -> None:
    found = supervisor.handle(VerifyRequest(key="v", task=LIBRARIES, kernel=module(RIGHT), options=QUICK, processes=2))
    assert found.evaluation.passed and found.aa is not None
    assert 0.9 < found.aa.value < 1.1
    speedup = found.evaluation.speedup
    assert speedup is not None and 0.9 < speedup.eager.value < 1.1


def test_eager_and_torch_compile_share_the_memory_of_one_batch(supervisor: Supervisor) -> None:
    """Both run in the reference's process. With 400 outputs of 8 MiB each, two batches do not fit into the arena."""
    source = SCALE_ADD.replace("= 64, 100", "= 2048, 1024").replace(
        "columns), torch.randn(rows, ", "columns), torch.randn("
    )
    task = Task.parse(source, name="large")
    reference = supervisor._reference(task, task.meta.workloads[0])
    reference.make_trials([1, 2], ["natural"] * 2, perturb=False)
    sides: dict[str, tuple[Host, str]] = {"eager": (reference, "eager"), "compile": (reference, "compile:default")}
    session = Session(reference, sides, before=alone(reference))
    for bench in session.benches.values():
        bench.calls = reference.capacity
    session._arrange_alike()
    for _ in range(3):
        session.group(["eager", "compile"])
    assert [bench.calls for bench in session.benches.values()] == [400, 400]
    assert [bench.memory["outside"] for bench in session.benches.values()] == [0, 0]


def test_a_process_that_waits_with_its_context_judges_as_a_fresh_one_does(supervisor: Supervisor) -> None:
    assert evaluate(supervisor, cuda()).passed  # and the baseline is there
    broken = MODEL_PY.replace("out = ", "raise ValueError('not today')\n        out = ")
    for model, verdict in ((broken, Verdict.RUNTIME_ERROR), (f"{MODEL_PY}\n# waited for\n", Verdict.PASSED)):
        supervisor.prepare(scale_add(), QUICK)
        waits = supervisor.waiting
        assert waits is not None and waits.alive
        found = evaluate(supervisor, Kernel.of(Language.CUDA, {"kernel.cu": KERNEL_CU, "model.py": model}))
        assert found.verdict is verdict, found.reason
        assert supervisor.waiting is None and not waits.alive and not waits.folder.exists()
        if verdict is Verdict.RUNTIME_ERROR:
            assert found.diagnostics[0].file == "model.py" and "not today" in found.diagnostics[0].source_line


def test_nothing_waits_before_there_is_a_baseline(supervisor: Supervisor) -> None:
    supervisor.prepare(scale_add(notes="nobody has measured this one"), QUICK)
    assert supervisor.waiting is None
