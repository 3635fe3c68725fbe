"""Logarithm of values from zero (included) to one."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x):
        return torch.log(x)


CUDAFORGE = {"input_range": [0.0, 1.0]}


def get_inputs():
    return [torch.rand(rows, columns)]


def get_init_inputs():
    return []
