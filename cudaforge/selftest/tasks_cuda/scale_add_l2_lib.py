"""x * weight + y over 1024 x 2048, all of it fits in L2. PyTorch's operators are allowed."""

import torch
from torch import nn

rows, columns = 1024, 2048

CUDAFORGE = {"allow_libraries": True}


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
