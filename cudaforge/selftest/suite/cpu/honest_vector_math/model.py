"""A softmax whose loops the compiler vectorises, exponentials included."""

import torch
from torch import nn

from .kernel import row_softmax


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        row_softmax(x, out)
        return out
