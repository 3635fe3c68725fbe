"""A loss: the mean of log cosh of the difference. Where a value lies does not matter to it; values are slow to draw."""

import torch
from torch import nn

rows, columns = 512, 1024


class Model(nn.Module):
    def forward(self, x, target):
        return torch.log(torch.cosh(x - target)).mean()


def noise():
    return sum(torch.randn(rows, columns) for _ in range(16)) / 4


def get_inputs():
    return [noise(), noise()]


def get_init_inputs():
    return []
