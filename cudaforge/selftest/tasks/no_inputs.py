"""Rotary embedding's cosines and sines for all positions, from learned frequencies."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, half, length):
        super().__init__()
        self.length = length
        self.frequency = nn.Parameter(10000.0 ** (-torch.arange(half) / half))

    def forward(self):
        angle = torch.arange(self.length, dtype=torch.float32)[:, None] * self.frequency
        return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)


def get_inputs():
    return []


def get_init_inputs():
    return [64, 1024]
