"""Rows are padded to another length; the output is a view without the padding."""

import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        wide = torch.empty(x.shape[0], x.shape[1] + 16)
        scale_add(x, self.weight, y, wide)
        return wide[:, : x.shape[1]]
