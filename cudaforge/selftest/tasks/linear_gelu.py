"""A linear layer and GELU."""

import torch
from torch import nn

rows, columns = 256, 512


class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, n)

    def forward(self, x):
        return nn.functional.gelu(self.linear(x))


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return [columns]
