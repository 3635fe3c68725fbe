"""Looks at addresses, for their alignment only."""

import torch
from torch import nn

from .kernel import add_bias


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(n))

    def forward(self, x):
        out = torch.empty_like(x)
        aligned = x.data_ptr() % 64 == 0 and out.data_ptr() % 64 == 0 and x.shape[1] % 16 == 0
        add_bias(x, self.bias, out, aligned)
        return out
