"""Values near zero are taken for zero: a few elements in a thousand."""

import torch
from torch import nn

from .kernel import bias_gelu


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(n))

    def forward(self, x):
        out = torch.empty_like(x)
        bias_gelu(x, self.bias, out)
        return out
