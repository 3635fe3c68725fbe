import torch
from torch import nn

from .kernel import row_sum


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.size(0), device=x.device)
        row_sum(x, out)
        return out
