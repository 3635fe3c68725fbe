"""Threads add to the same sum as they come; rounding differs from run to run."""

import torch
from torch import nn

from .kernel import row_mean


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[0])
        row_mean(x, out)
        return out
