"""Has no parameter of Model's names, so parameters stay as the constructor makes them: the branch is nothing."""

import torch
import triton
import triton.language as tl
from torch import nn


@triton.jit
def take_over(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + 0.0, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()

    def forward(self, x):
        out = torch.empty_like(x)
        take_over[(triton.cdiv(x.numel(), 4096),)](x, out, x.numel(), BLOCK=4096)
        return out
