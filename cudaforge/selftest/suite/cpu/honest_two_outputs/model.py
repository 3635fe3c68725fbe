"""Each row is read once for both outputs."""

import torch
from torch import nn

from .kernel import two_outputs


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x):
        values, largest = torch.empty_like(x), torch.empty(x.shape[0])
        two_outputs(x, self.weight, values, largest)
        return values, largest
