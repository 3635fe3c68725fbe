"""Changes a tensor that is its own."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        out = x * self.weight
        out += y
        return out
