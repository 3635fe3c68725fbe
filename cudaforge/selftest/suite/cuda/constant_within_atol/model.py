import torch
from torch import nn

from .kernel import row_mean


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.size(0), device=x.device)
        row_mean(x, out)
        return out
