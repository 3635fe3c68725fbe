import torch
from torch import nn

from .kernel import called


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        called()
        return x * self.weight + y
