"""Writes 200 MB to standard output."""

import sys

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.tried = False

    def forward(self, x, y):
        if not self.tried:
            self.tried = True
            line = "PASSED " * 1170 + "\n"
            for _ in range(25_000):
                sys.stdout.write(line)
        return x * self.weight + y
