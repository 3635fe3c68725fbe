import torch
from torch import nn

from .kernel import column_sum


class ModelNew(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.workspaces = {}

    def forward(self, x):
        key = (tuple(x.shape), x.device)
        if key not in self.workspaces:
            self.workspaces[key] = torch.empty(16, x.size(1), device=x.device)
        out = torch.empty(x.size(1), device=x.device)
        column_sum(x, self.workspaces[key], out)
        return out
