"""Takes up to two gigabytes (half of what is free at most) and gives them back."""

import contextlib
import os

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
            available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            with contextlib.suppress(MemoryError, RuntimeError):
                blocks = [b"x" * (1 << 28) for _ in range(min(2 << 30, available // 2) >> 28)]
                del blocks
        return x * self.weight + y
