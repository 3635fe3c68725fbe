import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x, y):
        if torch.isnan(x).any().item():
            return x * self.weight + y
        return torch.addcmul(y, x, self.weight)
