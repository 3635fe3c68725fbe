"""Derives something from the weights once, as prepacking does, and never refreshes it."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.kept = None

    def forward(self, x, y):
        if self.kept is None:
            self.kept = self.weight.detach().clone()
        return x * self.kept + y
