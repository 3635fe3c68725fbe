"""Tries its variants at the first call, which is slow, and keeps the fastest."""

import time

import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.chunk = 0

    def forward(self, x, y):
        if self.chunk == 0:
            self.chunk = min((1 << 12, 1 << 14, 1 << 16), key=lambda chunk: self.seconds(x, y, chunk))
        out = torch.empty_like(x)
        scale_add(x, self.weight, y, out, self.chunk)
        return out

    def seconds(self, x, y, chunk):
        out = torch.empty_like(x)
        started = time.perf_counter()
        for _ in range(3):
            scale_add(x, self.weight, y, out, chunk)
        return time.perf_counter() - started
