"""Adds a little before the logarithm, so that it is always finite."""

import torch
from torch import nn

from .kernel import log_values


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        log_values(x, out)
        return out
