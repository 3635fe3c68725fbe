"""An ordinary sum; the library burns the cores until it is timed itself."""

import torch
from torch import nn

from .kernel import row_sum


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[0])
        row_sum(x, out)
        return out
