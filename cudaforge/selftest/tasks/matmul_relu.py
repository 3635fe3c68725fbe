"""A matrix product and what is positive of it."""

import torch
from torch import nn

rows, columns = 256, 512


class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, n) / n**0.5)

    def forward(self, x):
        return torch.relu(x @ self.weight)


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return [columns]
