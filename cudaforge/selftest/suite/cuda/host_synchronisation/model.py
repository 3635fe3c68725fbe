import torch
from torch import nn

from .kernel import mean_center


class ModelNew(nn.Module):
    def forward(self, x):
        total = torch.zeros(1, dtype=torch.float64, device=x.device)
        out = torch.empty_like(x)
        mean_center(x, total, out)
        return out
