"""Attention in fp16, as it is written down: the scores are kept."""

import torch
from torch import nn

batch, heads, length = 4, 16, 1024

CUDAFORGE = {"dtype": "float16"}


class Model(nn.Module):
    def forward(self, q, k, v):
        scores = (q @ k.transpose(-1, -2)) * 0.125
        return torch.softmax(scores, dim=-1) @ v


def get_inputs():
    return [torch.randn(batch, heads, length, 64) for _ in range(3)]


def get_init_inputs():
    return []
