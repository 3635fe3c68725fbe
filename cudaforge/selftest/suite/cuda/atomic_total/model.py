import torch
from torch import nn

from .kernel import total_sum


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.zeros(1, 1, device=x.device)
        total_sum(x, out)
        return out
