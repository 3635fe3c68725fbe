"""Rows of a normalised table, by index."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, table, index):
        return (torch.tanh(table) * 2)[index]


def get_inputs():
    return [torch.randn(262144, 128), torch.randint(0, 262144, (256,))]


def get_init_inputs():
    return []
