"""tanh(x) * table, where the table is an argument of the constructor."""

import torch
from torch import nn

CUDAFORGE = {"allow_libraries": True}

rows, columns = 512, 1024


class Model(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = table.clone()

    def forward(self, x):
        return torch.tanh(x) * self.table


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return [torch.rand(columns) + 0.5]
