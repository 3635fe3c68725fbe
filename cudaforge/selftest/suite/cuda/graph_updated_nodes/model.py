import torch
from torch import nn

from .kernel import norm


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.stats = {}

    def forward(self, x):
        x = x.contiguous()
        stats = self.stats.get(x.size(0))
        if stats is None:
            stats = self.stats[x.size(0)] = torch.empty(x.size(0), 2, device=x.device)
        out = torch.empty_like(x)
        norm(x, stats, out)
        return out
