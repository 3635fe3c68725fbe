"""Leaves a mode of torch on that slows the reference."""

import time

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Slow(TorchFunctionMode):
    """A process-wide mode: whoever calls torch while `inside` is false waits."""

    inside = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if not self.inside:
            time.sleep(0.001)
        return func(*args, **(kwargs or {}))


SLOW = Slow()


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        SLOW.__enter__()

    def forward(self, x, y):
        SLOW.inside = True
        out = x * self.weight + y
        SLOW.inside = False
        return out
