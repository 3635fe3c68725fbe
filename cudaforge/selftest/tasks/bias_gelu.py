"""GELU of values with a bias."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(n))

    def forward(self, x):
        return nn.functional.gelu(x + self.bias)


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return [columns]
