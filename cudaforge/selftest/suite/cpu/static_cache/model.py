"""Calls a kernel that hides a cache in its library."""

import torch
from torch import nn

from .kernel import linear_gelu


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, n)

    def forward(self, x):
        out = torch.empty_like(x)
        linear_gelu(x, self.linear.weight, self.linear.bias, out)
        return out
