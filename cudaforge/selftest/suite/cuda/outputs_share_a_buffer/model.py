import torch
from torch import nn

from .kernel import add, dot


class ModelNew(nn.Module):
    def forward(self, x, y):
        both = torch.empty(x.numel() + x.size(0), device=x.device)
        out, dots = both[: x.numel()].view_as(x), both[x.numel() :]
        add(x, y, out)
        dot(x, y, dots)
        return out, dots
