"""Lays the weights out once for many calls; copy_ and optimisers bump a tensor's version."""

import torch
from torch import nn

from .kernel import linear_gelu, pack


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, n)
        self.version, self.packed = -1, None

    def forward(self, x):
        if self.version != self.linear.weight._version:
            self.packed = torch.empty(self.linear.weight.numel())
            pack(self.linear.weight, self.packed)
            self.version = self.linear.weight._version
        out = torch.empty_like(x)
        linear_gelu(x, self.packed, self.linear.bias, out)
        return out
