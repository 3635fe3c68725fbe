"""The customary form of a kernel in a single file."""

import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

CPP = r"""
#include <torch/extension.h>

void scale_add(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y, at::Tensor out) {
  const float *a = x.data_ptr<float>(), *w = weight.data_ptr<float>(), *b = y.data_ptr<float>();
  float* o = out.data_ptr<float>();
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) o[r * columns + c] = a[r * columns + c] * w[c] + b[r * columns + c];
}
"""

extension = load_inline(
    name="scale_add_extension",
    cpp_sources=CPP,
    functions=["scale_add"],
    no_implicit_headers=True,
    extra_cflags=["-O3", "-march=native", "-fopenmp"],
    extra_ldflags=["-fopenmp"],
)


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        out = torch.empty_like(x)
        extension.scale_add(x, self.weight, y, out)
        return out
