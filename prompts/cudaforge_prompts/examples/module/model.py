import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

CUDA = r"""
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

__global__ void add_kernel(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out,
                           int64_t n) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < n) out[i] = a[i] + b[i];
}

void add(const at::Tensor& a, const at::Tensor& b, at::Tensor out) {
  const int64_t n = out.numel();
  if (n == 0) return;
  const unsigned blocks = static_cast<unsigned>((n + 255) / 256);
  add_kernel<<<blocks, 256, 0, c10::cuda::getCurrentCUDAStream()>>>(
      a.data_ptr<float>(), b.data_ptr<float>(), out.data_ptr<float>(), n);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}
"""

# The light header keeps the .cu quick to compile; the C++ side needs torch/extension.h for its bindings.
extension = load_inline(
    name="add_extension",
    cpp_sources="#include <torch/extension.h>\nvoid add(const at::Tensor& a, const at::Tensor& b, at::Tensor out);",
    cuda_sources=CUDA,
    functions=["add"],
    no_implicit_headers=True,
    extra_cuda_cflags=["-O3", "-lineinfo"],
)


class ModelNew(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = a.contiguous(), b.contiguous()
        out = torch.empty_like(a)
        extension.add(a, b, out)
        return out
