import torch
from torch import nn

from .kernel import add


class ModelNew(nn.Module):
    def forward(self, x, y):
        out, dots = torch.empty_like(x), torch.empty(x.size(0), device=x.device)
        add(x, y, out, dots)
        return out, dots
