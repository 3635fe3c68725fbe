"""4 Mi numbers in ascending order; they are slow to draw. PyTorch's operators are allowed."""

import torch
from torch import nn

n = 4 << 20

CUDAFORGE = {"allow_libraries": True}


class Model(nn.Module):
    def forward(self, x):
        return torch.sort(x).values


def get_inputs():
    return [sum(torch.randn(n, device="cpu") for _ in range(4)) / 2]


def get_init_inputs():
    return []
