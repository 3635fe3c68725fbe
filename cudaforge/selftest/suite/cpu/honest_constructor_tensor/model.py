"""Takes its constructor's tensor as it is."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, x):
        return torch.tanh(x).mul_(self.table)
