"""One pass for maximum and sum, term by term, one for the result."""

import torch
from torch import nn

from .kernel import row_softmax


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        row_softmax(x, out)
        return out
