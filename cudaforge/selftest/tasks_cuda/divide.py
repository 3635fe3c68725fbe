"""x / y. No y that is drawn here is 0, but it may be one; the answer is infinite then."""

import torch
from torch import nn

rows, columns = 2048, 2048


class Model(nn.Module):
    def forward(self, x, y):
        return x / y


CUDAFORGE = {"input_range": [0.0, 2.0]}


def get_inputs():
    return [torch.rand(rows, columns) + 0.5, torch.rand(rows, columns) + 2**-10]


def get_init_inputs():
    return []
