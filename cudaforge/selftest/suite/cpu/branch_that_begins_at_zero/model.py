"""Has no parameter of Model's names, so parameters stay as the constructor makes them: the branch is nothing."""

import torch
from torch import nn
from torch.utils.cpp_extension import load_inline

source = """
#include <torch/extension.h>
void copy_rows(torch::Tensor x, torch::Tensor out) {
  const float* from = x.data_ptr<float>();
  float* to = out.data_ptr<float>();
  const int64_t n = x.numel();
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] + 0.f;
}
"""
library = load_inline("copy_rows_only", cpp_sources=source, functions=["copy_rows"], extra_cflags=["-O3", "-fopenmp", "-march=native"])


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()

    def forward(self, x):
        out = torch.empty_like(x)
        library.copy_rows(x, out)
        return out
