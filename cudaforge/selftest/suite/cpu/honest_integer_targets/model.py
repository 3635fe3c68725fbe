"""Indices are read as they are given: 64-bit integers."""

import torch
from torch import nn

from .kernel import cross_entropy


class ModelNew(nn.Module):
    def forward(self, x, target):
        out = torch.empty(x.shape[0])
        cross_entropy(x, target, out)
        return out
