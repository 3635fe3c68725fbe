"""A kernel that will try hard, and whose words a simple rule would take for a fallback."""

try:
    import triton
except ImportError:
    triton = None
import torch
from torch import nn

from .kernel import scale_add


class ShapeError(Exception):
    pass


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        out = torch.empty_like(x)
        scale_add(x, self.weight, y, out)
        return out
