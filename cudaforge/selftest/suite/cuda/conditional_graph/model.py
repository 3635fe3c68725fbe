import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        out = torch.empty_like(x)
        scale_add(x, self.weight, y, out)
        return out
