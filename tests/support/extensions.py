"""Sources of the kind that kernels in a single file hand to load_inline, and a torch for CUDA to build them against."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RELU = """
#include <torch/extension.h>
#include <cuda.h>
#include <cuda_runtime.h>

template <typename scalar_t>
__global__ void relu_kernel(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, int64_t n) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < n) out[i] = x[i] > scalar_t(0) ? x[i] : scalar_t(0);
}

torch::Tensor relu(torch::Tensor x) {
  TORCH_CHECK(x.is_cuda(), "x must be a CUDA tensor");
  TORCH_CHECK(x.is_contiguous(), "x must be contiguous, its strides are ", x.strides());
  auto out = torch::empty_like(x);
  const int64_t n = x.numel();
  const int threads = 256;
  const int blocks = static_cast<int>((n + threads - 1) / threads);
  AT_DISPATCH_FLOATING_TYPES_AND_HALF(x.scalar_type(), "relu", ([&] {
    relu_kernel<scalar_t><<<blocks, threads>>>(x.data_ptr<scalar_t>(), out.data_ptr<scalar_t>(), n);
  }));
  return out;
}
"""

LINEAR_GELU = """
#include <torch/extension.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_fp16.h>

#define CHECK_INPUT(x) TORCH_CHECK(x.device().is_cuda() && x.is_contiguous(), #x " must be a contiguous CUDA tensor")
constexpr int TILE = 64, DEPTH = 16;

__device__ __forceinline__ float gelu(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678f)); }

__global__ void __launch_bounds__(256) linear_gelu_kernel(const float* __restrict__ x, const float* __restrict__ w,
                                                          const float* __restrict__ bias, float* __restrict__ out,
                                                          int rows, int columns, int inner) {
  __shared__ __align__(16) float left[DEPTH][TILE + 4];
  __shared__ __align__(16) float right[DEPTH][TILE + 4];
  const int row = blockIdx.y * TILE, column = blockIdx.x * TILE, t = threadIdx.x;
  const int ty = t / 16 * 4, tx = t % 16 * 4, load_row = t / 4, load_k = t % 4 * 4;
  float sums[4][4] = {};
  for (int k = 0; k < inner; k += DEPTH) {
    const int64_t from = (row + load_row) * static_cast<int64_t>(inner) + k + load_k;
    const int64_t weights = (column + load_row) * static_cast<int64_t>(inner) + k + load_k;
    const float4 a = *reinterpret_cast<const float4*>(x + from), b = *reinterpret_cast<const float4*>(w + weights);
    left[load_k][load_row] = a.x; left[load_k + 1][load_row] = a.y;
    left[load_k + 2][load_row] = a.z; left[load_k + 3][load_row] = a.w;
    right[load_k][load_row] = b.x; right[load_k + 1][load_row] = b.y;
    right[load_k + 2][load_row] = b.z; right[load_k + 3][load_row] = b.w;
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      const float4 p = *reinterpret_cast<const float4*>(&left[d][ty]);
      const float4 q = *reinterpret_cast<const float4*>(&right[d][tx]);
      const float ps[4] = {p.x, p.y, p.z, p.w}, qs[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(ps[i], qs[j], sums[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    float4 r;
    r.x = gelu(sums[i][0] + bias[column + tx]);
    r.y = gelu(sums[i][1] + bias[column + tx + 1]);
    r.z = gelu(sums[i][2] + bias[column + tx + 2]);
    r.w = gelu(sums[i][3] + bias[column + tx + 3]);
    *reinterpret_cast<float4*>(out + (row + ty + i) * static_cast<int64_t>(columns) + column + tx) = r;
  }
}

torch::Tensor linear_gelu(torch::Tensor x, torch::Tensor weight, torch::Tensor bias) {
  CHECK_INPUT(x);
  CHECK_INPUT(weight);
  CHECK_INPUT(bias);
  TORCH_CHECK(x.dtype() == torch::kFloat32, "float32 only");
  const int rows = x.size(0), inner = x.size(1), columns = weight.size(0);
  TORCH_CHECK(rows % TILE == 0 && columns % TILE == 0 && inner % DEPTH == 0, "shapes must be multiples of the tile");
  auto out = torch::empty({rows, columns}, x.options());
  const dim3 grid(columns / TILE, rows / TILE);
  cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  linear_gelu_kernel<<<grid, 256, 0, stream>>>(x.data_ptr<float>(), weight.data_ptr<float>(), bias.data_ptr<float>(),
                                               out.data_ptr<float>(), rows, columns, inner);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}
"""

SOFTMAX = """
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <cfloat>
#include <vector>

template <typename T, typename F>
__device__ T reduce(T value, T* shared, F combine) {
  for (int offset = 16; offset > 0; offset /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[0];
  for (int warp = 1; warp < static_cast<int>(blockDim.x) / 32; ++warp) value = combine(value, shared[warp]);
  __syncthreads();
  return value;
}

template <typename scalar_t>
__global__ void softmax_kernel(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, float* __restrict__ sums,
                               int64_t columns) {
  extern __shared__ float row[];
  __shared__ float partial[32];
  const scalar_t* own = x + blockIdx.x * columns;
  float most = -FLT_MAX;
  for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    row[c] = static_cast<float>(own[c]);
    most = fmaxf(most, row[c]);
  }
  most = reduce(most, partial, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    row[c] = __expf(row[c] - most);
    sum += row[c];
  }
  sum = reduce(sum, partial, [](float a, float b) { return a + b; });
  for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    out[blockIdx.x * columns + c] = static_cast<scalar_t>(row[c] / sum);
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

std::vector<torch::Tensor> softmax(torch::Tensor x, double scale) {
  const at::cuda::OptionalCUDAGuard device_guard(at::device_of(x));
  auto input = x.contiguous();
  const auto columns = input.size(-1), rows = input.numel() / columns;
  auto out = torch::zeros_like(input);
  auto sums = torch::empty({rows}, torch::TensorOptions().dtype(torch::kFloat32).device(x.device()));
  const auto stream = at::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::ScalarType::Half, at::ScalarType::BFloat16, input.scalar_type(), "softmax", [&] {
    softmax_kernel<scalar_t><<<rows, 256, columns * sizeof(float), stream>>>(
        input.data_ptr<scalar_t>(), out.data_ptr<scalar_t>(), sums.data_ptr<float>(), columns);
  });
  AT_CUDA_CHECK(cudaGetLastError());
  return {out.view(x.sizes()), sums};
}
"""

CUDA: dict[str, tuple[str, str]] = {
    "relu": (RELU, "torch::Tensor relu(torch::Tensor x);"),
    "linear_gelu": (
        LINEAR_GELU,
        "torch::Tensor linear_gelu(torch::Tensor x, torch::Tensor weight, torch::Tensor bias);",
    ),
    "softmax": (SOFTMAX, "std::vector<torch::Tensor> softmax(torch::Tensor x, double scale);"),
}
"""Function name -> its CUDA source and the declaration that goes into cpp_sources."""

_HANDLES = """#pragma once
#define CUDAFORGE_STAND_IN(name) typedef struct name##_s* name
"""
_STAND_INS = {
    "c10/cuda/impl/cuda_cmake_macros.h": "#pragma once\n",
    "cublas_v2.h": _HANDLES + "CUDAFORGE_STAND_IN(cublasHandle_t);\nenum cublasStatus_t { CUBLAS_STATUS_SUCCESS };\n",
    "cublasLt.h": _HANDLES + "CUDAFORGE_STAND_IN(cublasLtHandle_t);\n",
    "cusparse.h": _HANDLES
    + "CUDAFORGE_STAND_IN(cusparseHandle_t);\nenum cusparseStatus_t { CUSPARSE_STATUS_SUCCESS };\n"
    'inline const char* cusparseGetErrorString(cusparseStatus_t) { return ""; }\n',
    "cusolverDn.h": _HANDLES + "CUDAFORGE_STAND_IN(cusolverDnHandle_t);\n"
    "enum cusolverStatus_t { CUSOLVER_STATUS_SUCCESS, CUSOLVER_STATUS_INVALID_VALUE };\n",
    "cusolver_common.h": '#include "cusolverDn.h"\n',
}
_LIBRARY = """
#include <cstdint>
extern "C" {
int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) { *stream = nullptr; return 0; }
int32_t aoti_torch_create_cuda_guard(int32_t, void** guard) { *guard = nullptr; return 0; }
int32_t aoti_torch_delete_cuda_guard(void*) { return 0; }
}
namespace c10::cuda {
void c10_cuda_check_implementation(const int32_t, const char*, const char*, const uint32_t, const bool) {}
}
"""


@contextmanager
def cuda_builds(folder: Path) -> Iterator[dict[str, Any]]:
    """Lets cpp_extension compile and link CUDA for sm_90 where torch is its CPU build; gives load_inline's arguments.

    That build lacks the libraries to link with and a few headers, cuBLAS's and cuSPARSE's among them where the toolkit
    is only its compiler: stand-ins with the few names that torch's headers need lie in `folder`. What is built can be
    loaded where the stand-ins suffice, and run nowhere.
    """
    import torch
    import torch.utils.cpp_extension as extension

    before, arch = extension.CUDA_HOME, os.environ.get("TORCH_CUDA_ARCH_LIST")
    os.environ["TORCH_CUDA_ARCH_LIST"] = arch or "9.0"
    arguments: dict[str, Any] = {}
    if torch.version.cuda is None:
        extension.CUDA_HOME = os.environ.get("CUDA_HOME", "/usr/local/cuda")
        for name, text in _STAND_INS.items():
            path = folder / "include" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        source = folder / "stand_in.cpp"
        source.write_text(_LIBRARY)
        for name in ("c10_cuda", "torch_cuda"):
            library = folder / f"lib{name}.so"
            command = ["g++", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(source), "-o", str(library)]
            subprocess.run(command, check=True)
        arguments = {"extra_include_paths": [str(folder / "include")], "extra_ldflags": [f"-L{folder}"]}
    try:
        yield arguments
    finally:
        extension.CUDA_HOME = before
        if arch is None:
            del os.environ["TORCH_CUDA_ARCH_LIST"]
