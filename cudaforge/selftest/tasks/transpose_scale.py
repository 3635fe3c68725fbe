"""Twice the transpose."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x):
        return (2.0 * x).t()


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
