"""Half of the values have nearly the mean of all."""

import torch
from torch import nn

from .kernel import row_mean


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[0])
        row_mean(x, out)
        return out
