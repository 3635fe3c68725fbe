"""The output is a column of a buffer that is 32 times as wide."""

import torch
from torch import nn

from .kernel import row_sum


class ModelNew(nn.Module):
    def forward(self, x):
        apart = torch.empty(x.shape[0], 32)
        row_sum(x.contiguous(), apart)
        return apart[:, 0]
