"""Outputs around a millionth, far below the usual absolute tolerance."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x):
        return torch.sin(x) * self.weight * 1e-6


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return [columns]
