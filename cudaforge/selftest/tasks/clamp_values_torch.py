"""Values limited to -8 ... 8, which a normal distribution hardly ever reaches."""

import torch
from torch import nn

CUDAFORGE = {"allow_libraries": True, "input_range": [-20.0, 20.0]}

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x):
        return torch.clamp(x, -8.0, 8.0)


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
