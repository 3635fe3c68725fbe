"""Constructs its parameters in the same order, and calls them otherwise."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        return torch.addcmul(y, x, self.gamma)
