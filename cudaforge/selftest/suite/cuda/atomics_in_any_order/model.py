import torch
from torch import nn

from .kernel import column_sum


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.size(1), device=x.device)
        column_sum(x, out)
        return out
