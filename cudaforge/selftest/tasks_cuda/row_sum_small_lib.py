"""Sum of each row of 2048 x 1024: a few microseconds. PyTorch's operators are allowed."""

import torch
from torch import nn

rows, columns = 2048, 1024

CUDAFORGE = {"allow_libraries": True}


class Model(nn.Module):
    def forward(self, x):
        return x.sum(dim=1)


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
