"""Layer normalisation over the last axis, with weight and bias, written out as one would in a model of one's own.

Eager runs the formula operator by operator, and each passes over memory anew; one pass that reads a row and
writes it is enough. Float32 sums over a row need care where the mean is far from zero.
"""

import torch
from torch import nn

tokens = 2048
features = 1024
eps = 1e-5

CUDAFORGE = {
    "notes": "The variance is the biased one (division by features). The mean of a row may be far from zero.",
}


class Model(nn.Module):
    """x: float32[tokens, features] -> float32[tokens, features]; weight and bias are float32[features]."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(features) + 0.5)
        self.bias = nn.Parameter(torch.randn(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(dim=-1, keepdim=True)
        variance = (centered * centered).mean(dim=-1, keepdim=True)
        return centered * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def get_inputs() -> list[torch.Tensor]:
    """One batch of token vectors, standard normal."""
    return [torch.randn(tokens, features)]


def get_init_inputs() -> list[object]:
    """features and eps."""
    return [features, eps]
