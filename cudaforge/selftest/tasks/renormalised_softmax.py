"""Softmax, normalised once more: the sum is one already, so a temporary of it holds the answer."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x):
        p = torch.softmax(x, dim=-1)
        return p / p.sum(dim=-1, keepdim=True)


def get_inputs():
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
