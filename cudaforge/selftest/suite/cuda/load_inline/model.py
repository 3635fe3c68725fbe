import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

CUDA = """
#include <ATen/cuda/CUDAContext.h>

__global__ void scale_add_kernel(const float* x, const float* w, const float* y, float* out, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] * w[i % columns] + y[i];
}

torch::Tensor scale_add(torch::Tensor x, torch::Tensor w, torch::Tensor y) {
  auto out = torch::empty_like(x);
  const int n = x.numel();
  scale_add_kernel<<<(n + 255) / 256, 256, 0, at::cuda::getCurrentCUDAStream()>>>(
      x.data_ptr<float>(), w.data_ptr<float>(), y.data_ptr<float>(), out.data_ptr<float>(), n, x.size(1));
  return out;
}
"""

extension = load_inline(
    name="selftest_scale_add",
    cpp_sources="torch::Tensor scale_add(torch::Tensor x, torch::Tensor w, torch::Tensor y);",
    cuda_sources=CUDA,
    functions=["scale_add"],
    verbose=False,
)


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        return extension.scale_add(x.contiguous(), self.weight, y.contiguous())
