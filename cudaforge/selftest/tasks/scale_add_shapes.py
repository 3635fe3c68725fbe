"""x * weight + y in three shapes; a harness that knows no workloads sees the first."""

import torch
from torch import nn

CUDAFORGE = {
    "workloads": [
        {"name": "default"},
        {"name": "small", "overrides": {"rows": 48}},
        {"name": "narrow", "overrides": {"columns": 320}},
    ]
}

rows = 512
columns = 1024


class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        return x * self.weight + y


def get_inputs():
    return [torch.randn(rows, columns), torch.randn(rows, columns)]


def get_init_inputs():
    return [columns]
