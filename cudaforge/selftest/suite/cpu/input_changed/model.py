"""Saves the allocation and works in the caller's tensor."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        return x.mul_(self.weight).add_(y)
