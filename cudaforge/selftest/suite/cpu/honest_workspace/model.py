"""Keeps memory for intermediate values from call to call, never a result."""

import torch
from torch import nn

from .kernel import row_softmax


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.workspaces = {}

    def forward(self, x):
        if x.shape not in self.workspaces:
            self.workspaces[x.shape] = torch.empty(2, x.shape[0])
        out = torch.empty_like(x)
        row_softmax(x, self.workspaces[x.shape], out)
        return out
