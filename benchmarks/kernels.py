"""Tasks and kernels of harness.py and throughput.py: the same device code, bound through tvm-ffi and through PyTorch.

A kernel here is C++ or CUDA with a function `launch(inputs..., out, sizes...)`. `native` binds it as our engine's
two-file kernel, `inline` as a single file that calls load_inline, as KernelBench-like harnesses take it. Only the lines
that bind differ.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task

SUITE = Path(__file__).resolve().parent.parent / "cudaforge" / "selftest"
TUNES = (256, 128, 512, 64)
"""Values of a kernel's tuning constant: threads of a block (CUDA), columns of a chunk (CPU). The first is usual."""


@dataclass(frozen=True)
class Mistake:
    """A wrong kernel: `old` in the device code becomes `new`."""

    name: str
    old: str
    new: str
    missed: bool = False
    """The conventional check is known to let it pass; ours must not."""


@dataclass(frozen=True)
class Case:
    """A task and its device code, which has the tuning constant TUNE."""

    name: str
    file: str
    """The task's file, below cudaforge/selftest."""
    device_code: str
    arguments: tuple[tuple[str, str], ...]
    """Tensors: name in C++, expression in forward."""
    sizes: tuple[str, ...]
    """What `launch` is given after the tensors, as C++ that both bindings understand."""
    forward: str
    """forward's parameters."""
    shape: str
    """Shape of the output, in Python."""
    init: str = ""
    init_parameters: str = ""
    mistakes: tuple[Mistake, ...] = ()
    cuda: bool = True

    def task(self) -> Task:
        """The task as both sides get it."""
        return Task.load(SUITE / self.file)

    def code(self, tune: int = TUNES[0], mistake: Mistake | None = None, note: str = "") -> str:
        """The device code. `note` goes into a comment: another text is another kernel, which is built anew."""
        code = self.device_code.strip()
        if mistake is not None:
            assert code.count(mistake.old) == 1, mistake
            code = code.replace(mistake.old, mistake.new)
        return f"// {note or self.name}\nconstexpr int TUNE = {tune};\n{code}\n"

    def native(self, code: str) -> Kernel:
        """kernel.cu or kernel.cpp with model.py: our engine's form."""
        names = [name for name, _ in self.arguments]
        typed = ", ".join(f"TensorView {name}" for name in [*names, "out"])
        pointers = ", ".join(f"floats({name})" for name in [*names, "out"])
        stream = ", stream_of(out)" if self.cuda else ""
        source = (
            (TVM_CUDA if self.cuda else TVM_CPU)
            + code
            + f"\nvoid {self.name}({typed}) {{\n  launch({pointers}, {', '.join(self.sizes)}{stream});\n}}\n"
            + f"TVM_FFI_DLL_EXPORT_TYPED_FUNC({self.name}, {self.name});\n"
        )
        model = self._model(f"from .kernel import {self.name}\n", self.name)
        language = Language.CUDA if self.cuda else Language.CPP
        return Kernel.of(language, {str(language.source_name): source, "model.py": model})

    def inline(self, code: str) -> str:
        """One file that builds itself by load_inline with torch/extension.h."""
        names = [name for name, _ in self.arguments]
        typed = ", ".join(f"torch::Tensor {name}" for name in [*names, "out"])
        pointers = ", ".join(f"{name}.data_ptr<float>()" for name in [*names, "out"])
        stream = ", c10::cuda::getCurrentCUDAStream()" if self.cuda else ""
        source = (
            ("#include <torch/extension.h>\n#include <c10/cuda/CUDAStream.h>\n" if self.cuda else "")
            + (CUDA_HEADERS if self.cuda else CPU_HEADERS)
            + code
            + f"\nvoid {self.name}({typed}) {{\n  launch({pointers}, {', '.join(self.sizes)}{stream});\n}}\n"
        )
        declared = f"cpp_sources='void {self.name}({typed});', cuda_sources=SOURCE, extra_cuda_cflags=['-O3']"
        flags = "extra_cflags=['-O3', '-march=native', '-fopenmp'], extra_ldflags=['-fopenmp']"
        arguments = declared if self.cuda else f"cpp_sources=SOURCE, {flags}"
        head = (
            "from torch.utils.cpp_extension import load_inline\n\n"
            f'SOURCE = r"""\n{source}"""\n'
            f"extension = load_inline(name='{self.name}_extension', functions=['{self.name}'], {arguments})\n"
        )
        return self._model(head, f"extension.{self.name}")

    def module(self, code: str) -> Kernel:
        """The load_inline form as a kernel for our engine."""
        return Kernel.of(Language.MODULE, {"model.py": self.inline(code)})

    def _model(self, head: str, function: str) -> str:
        values = ", ".join(expression for _, expression in self.arguments)
        init = f"\n    def __init__(self, {self.init_parameters}):\n        super().__init__()\n        {self.init}\n"
        return (
            f"import torch\nfrom torch import nn\n{head}\n\nclass ModelNew(nn.Module):"
            + (init if self.init else "")
            + f"\n    def forward(self, {self.forward}):\n"
            + textwrap.indent(
                f"out = torch.empty({self.shape}, dtype=x.dtype, device=x.device)\n"
                f"{function}({values}, out)\nreturn out\n",
                " " * 8,
            )
        )


CPU_HEADERS = "#include <algorithm>\n#include <cmath>\n#include <cstdint>\n\n"
CUDA_HEADERS = "#include <cstdint>\n#include <cuda_runtime.h>\n\n"
TVM_CPU = f"""{CPU_HEADERS}#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* floats(TensorView t) {{ return static_cast<float*>(t.data_ptr()); }}

"""
TVM_CUDA = f"""{CUDA_HEADERS}#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* floats(TensorView t) {{ return static_cast<float*>(t.data_ptr()); }}
static cudaStream_t stream_of(TensorView t) {{
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}}

"""

CPU_SCALE_ADD = """
void launch(const float* x, const float* weight, const float* y, float* out, int64_t rows, int64_t columns) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t first = 0; first < columns; first += TUNE) {
      const int64_t last = std::min<int64_t>(first + TUNE, columns);
#pragma omp simd
      for (int64_t c = first; c < last; ++c)
        out[r * columns + c] = x[r * columns + c] * weight[c] + y[r * columns + c];
    }
}
"""
CPU_SOFTMAX = """
void launch(const float* x, float* out, int64_t rows, int64_t columns) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * columns;
    float* to = out + r * columns;
    float largest = in[0];
#pragma omp simd reduction(max : largest)
    for (int64_t c = 1; c < columns; ++c) largest = std::max(largest, in[c]);
    float total = 0.f;
    for (int64_t first = 0; first < columns; first += TUNE) {
      const int64_t last = std::min<int64_t>(first + TUNE, columns);
      for (int64_t c = first; c < last; ++c) to[c] = std::exp(in[c] - largest);
      for (int64_t c = first; c < last; ++c) total += to[c];
    }
    const float scale = 1.f / total;
    for (int64_t c = 0; c < columns; ++c) to[c] *= scale;
  }
}
"""
CUDA_SCALE_ADD = """
__global__ void __launch_bounds__(TUNE) scale_add_kernel(const float4* x, const float4* weight, const float4* y,
                                                         float4* out, int n4, int columns4) {
  const int i = blockIdx.x * TUNE + threadIdx.x;
  if (i >= n4) return;
  const float4 a = x[i], b = weight[i % columns4], c = y[i];
  out[i] = make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}

void launch(const float* x, const float* weight, const float* y, float* out, int64_t rows, int64_t columns,
            cudaStream_t stream) {
  const int n4 = static_cast<int>(rows * columns / 4);
  scale_add_kernel<<<(n4 + TUNE - 1) / TUNE, TUNE, 0, stream>>>(
      reinterpret_cast<const float4*>(x), reinterpret_cast<const float4*>(weight),
      reinterpret_cast<const float4*>(y), reinterpret_cast<float4*>(out), n4, static_cast<int>(columns / 4));
}
"""
CUDA_LAYER_NORM = """
__device__ float block_sum(float value, float* parts) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0.f;
  for (int i = 0; i < TUNE / 32; ++i) value += parts[i];
  return value;
}

// A block a row: the mean, then the variance around it, then the row again out of L1.
__global__ void __launch_bounds__(TUNE) layer_norm_kernel(const float* x, const float* gamma, const float* beta,
                                                          float* out, int columns) {
  __shared__ float parts[2][TUNE / 32];
  x += static_cast<int64_t>(blockIdx.x) * columns;
  out += static_cast<int64_t>(blockIdx.x) * columns;
  float sum = 0.f;
  for (int c = threadIdx.x; c < columns; c += TUNE) sum += x[c];
  const float mean = block_sum(sum, parts[0]) / columns;
  float squares = 0.f;
  for (int c = threadIdx.x; c < columns; c += TUNE) squares += (x[c] - mean) * (x[c] - mean);
  const float variance = block_sum(squares, parts[1]) / columns;
  const float scale = 1.f / sqrtf(variance + 1e-5f);
  for (int c = threadIdx.x; c < columns; c += TUNE) out[c] = (x[c] - mean) * scale * gamma[c] + beta[c];
}

void launch(const float* x, const float* gamma, const float* beta, float* out, int64_t rows, int64_t columns,
            cudaStream_t stream) {
  layer_norm_kernel<<<static_cast<int>(rows), TUNE, 0, stream>>>(x, gamma, beta, out, static_cast<int>(columns));
}
"""
CUDA_LINEAR_GELU = """
constexpr int TILE = 64, DEPTH = TUNE >= 256 ? 16 : 8, PITCH = TILE + 4, THREADS = 256;

// A block of 16 x 16 threads computes 64 x 64 outputs, a thread 4 x 4 of them. Sizes are multiples of the tile.
__global__ void __launch_bounds__(THREADS) linear_gelu_kernel(const float* x, const float* weight, const float* bias,
                                                              float* out, int columns, int depth) {
  __shared__ __align__(16) float xs[DEPTH][PITCH], ws[DEPTH][PITCH];
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  float sums[4][4] = {};
  for (int k0 = 0; k0 < depth; k0 += DEPTH) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
      const int line = i / DEPTH, k = i % DEPTH;
      xs[k][line] = x[static_cast<int64_t>(row0 + line) * depth + k0 + k];
      ws[k][line] = weight[static_cast<int64_t>(column0 + line) * depth + k0 + k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      const float4 a4 = *reinterpret_cast<const float4*>(&xs[k][ty * 4]);
      const float4 b4 = *reinterpret_cast<const float4*>(&ws[k][tx * 4]);
      const float a[4] = {a4.x, a4.y, a4.z, a4.w}, b[4] = {b4.x, b4.y, b4.z, b4.w};
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const float z = sums[i][j] + bias[column0 + tx * 4 + j];
      out[static_cast<int64_t>(row0 + ty * 4 + i) * columns + column0 + tx * 4 + j] =
          0.5f * z * (1.f + erff(z * 0.70710678f));
    }
}

void launch(const float* x, const float* weight, const float* bias, float* out, int64_t rows, int64_t columns,
            int64_t depth, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(columns / TILE), static_cast<unsigned>(rows / TILE));
  linear_gelu_kernel<<<grid, THREADS, 0, stream>>>(x, weight, bias, out, static_cast<int>(columns),
                                                   static_cast<int>(depth));
}
"""

CPU = (
    Case(
        name="scale_add",
        file="tasks/scale_add.py",
        device_code=CPU_SCALE_ADD,
        arguments=(("x", "x"), ("weight", "self.weight"), ("y", "y")),
        sizes=("x.size(0)", "x.size(1)"),
        forward="x, y",
        shape="x.shape",
        init="self.weight = nn.Parameter(torch.rand(n) + 0.5)",
        init_parameters="n",
        mistakes=(Mistake("the weight of the next column", "weight[c]", "weight[(c + 1) % columns]"),),
        cuda=False,
    ),
    Case(
        name="row_softmax",
        file="tasks/row_softmax.py",
        device_code=CPU_SOFTMAX,
        arguments=(("x", "x"),),
        sizes=("x.size(0)", "x.size(1)"),
        forward="x",
        shape="x.shape",
        mistakes=(
            Mistake("only half of the sum", "1.f / total", "2.f / total"),
            Mistake(
                "the reciprocal rounded to 17 binary places",
                "1.f / total",
                "std::nearbyint(131072.f / total) / 131072.f",
                missed=True,  # outputs are small, and the tolerance is absolute
            ),
        ),
        cuda=False,
    ),
)
CUDA = (
    Case(
        name="scale_add",
        file="tasks_cuda/scale_add.py",
        device_code=CUDA_SCALE_ADD,
        arguments=(("x", "x"), ("weight", "self.weight"), ("y", "y")),
        sizes=("x.size(0)", "x.size(1)"),
        forward="x, y",
        shape="x.shape",
        init="self.weight = nn.Parameter(torch.rand(n) + 0.5)",
        init_parameters="n",
        mistakes=(Mistake("the weight of the next columns", "weight[i % columns4]", "weight[(i + 1) % columns4]"),),
    ),
    Case(
        name="layer_norm",
        file="tasks_cuda/layer_norm.py",
        device_code=CUDA_LAYER_NORM,
        arguments=(("x", "x"), ("gamma", "self.norm.weight"), ("beta", "self.norm.bias")),
        sizes=("x.size(0)", "x.size(1)"),
        forward="x",
        shape="x.shape",
        init="self.norm = nn.LayerNorm(n)",
        init_parameters="n",
        mistakes=(
            Mistake("the variance of a sample", "parts[1]) / columns", "parts[1]) / (columns - 1)"),
            Mistake("gamma and beta ignored", "scale * gamma[c] + beta[c]", "scale", missed=True),
        ),
    ),
    Case(
        name="linear_gelu",
        file="tasks_cuda/gemm_bias_gelu.py",
        device_code=CUDA_LINEAR_GELU,
        arguments=(("x", "x"), ("weight", "self.linear.weight"), ("bias", "self.linear.bias")),
        sizes=("x.size(0)", "weight.size(0)", "x.size(1)"),
        forward="x",
        shape="x.size(0), self.linear.out_features",
        init="self.linear = nn.Linear(features_in, features_out)",
        init_parameters="features_in, features_out",
        mistakes=(
            Mistake(
                "the tanh form of GELU",
                "(1.f + erff(z * 0.70710678f))",
                "(1.f + tanhf(0.79788456f * (z + 0.044715f * z * z * z)))",
            ),
        ),
    ),
)


def cases(device: str) -> tuple[Case, ...]:
    """The tasks for `cpu` or `cuda:N`."""
    return CPU if device == "cpu" else CUDA
