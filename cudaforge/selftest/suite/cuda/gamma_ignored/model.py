import torch
from torch import nn

from .kernel import normalise


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n)

    def forward(self, x):
        out = torch.empty_like(x)
        normalise(x, out)
        return out
