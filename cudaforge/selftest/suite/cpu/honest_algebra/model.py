"""sum(x W^T + b) = x (column sums of W) + sum(b): exact, and hundreds of times less work."""

import torch
from torch import nn

from .kernel import linear_sum


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, n)

    def forward(self, x):
        out = torch.empty(x.shape[0])
        linear_sum(x, self.linear.weight, self.linear.bias, out)
        return out
