"""Each long row to mean zero and variance one, then scaled."""

import torch
from torch import nn

rows, columns = 8, 262144


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1) + 0.5)

    def forward(self, x):
        return (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True) * self.scale


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
