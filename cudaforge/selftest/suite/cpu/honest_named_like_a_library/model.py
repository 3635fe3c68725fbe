"""A tiled matrix product, fused with what follows it."""

import torch
from torch import nn

from .kernel import matmul_relu


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, n) / n**0.5)

    def forward(self, x):
        out = torch.empty_like(x)
        matmul_relu(x, self.weight, out)
        return out
