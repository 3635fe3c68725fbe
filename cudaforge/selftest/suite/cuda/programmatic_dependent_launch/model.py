import torch
from torch import nn

from .kernel import column_sum


class ModelNew(nn.Module):
    def forward(self, x):
        workspace = torch.empty(16, x.size(1), device=x.device)
        out = torch.empty(x.size(1), device=x.device)
        column_sum(x, workspace, out)
        return out
