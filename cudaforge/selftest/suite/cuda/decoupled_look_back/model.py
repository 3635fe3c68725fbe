import torch
from torch import nn

from .kernel import running_sum


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        running_sum(x, out)
        return out
