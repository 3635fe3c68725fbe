import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.out = None

    def forward(self, x, y):
        if self.out is None:
            self.out = torch.empty_like(x)
        scale_add(x, self.weight, y, self.out)
        return self.out
