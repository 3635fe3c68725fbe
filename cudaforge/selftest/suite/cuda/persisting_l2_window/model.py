import torch
from torch import nn

from .kernel import persist


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        persist(x)
        return x * self.weight + y
