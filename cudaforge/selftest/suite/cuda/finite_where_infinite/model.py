import torch
from torch import nn

from .kernel import divide


class ModelNew(nn.Module):
    def forward(self, x, y):
        out = torch.empty_like(x)
        divide(x, y, out)
        return out
