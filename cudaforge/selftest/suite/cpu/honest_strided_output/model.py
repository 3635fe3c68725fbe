"""The transpose of a contiguous tensor: right values, no copy."""

import torch
from torch import nn

from .kernel import twice


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        twice(x, out)
        return out.t()
