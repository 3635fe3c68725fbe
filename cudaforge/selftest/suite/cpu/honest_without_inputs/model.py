import torch
from torch import nn

from .kernel import table


class ModelNew(nn.Module):
    def __init__(self, half, length):
        super().__init__()
        self.length = length
        self.frequency = nn.Parameter(10000.0 ** (-torch.arange(half) / half))

    def forward(self):
        out = torch.empty(self.length, self.frequency.numel(), 2)
        table(self.frequency.detach(), out)
        return out
