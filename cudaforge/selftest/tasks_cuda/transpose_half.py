"""Matrices transposed and rounded to fp16."""

import torch
from torch import nn

count, rows, columns = 64, 512, 512


class Model(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2).contiguous().to(torch.float16)


def get_inputs():
    return [torch.randn(count, rows, columns)]


def get_init_inputs():
    return []
