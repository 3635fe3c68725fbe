"""Which values are large: one in 400 of a normal distribution."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x):
        return x.abs() > 3.0


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
