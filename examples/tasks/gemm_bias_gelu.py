"""A linear layer followed by the exact GELU: gelu(x @ weight.T + bias).

The matrix product is nearly all of the work, and the vendor's library is hard to beat at it. What a fused
kernel can save is the second pass over the output, and the erf in it. A run that finds no win here is an
honest result.
"""

import torch
from torch import nn
from torch.nn import functional

rows = 1024
features_in = 1024
features_out = 1024

CUDAFORGE = {
    "notes": "GELU is the exact one, 0.5 * z * (1 + erf(z / sqrt(2))), not the tanh approximation.",
}


class Model(nn.Module):
    """x: float32[rows, features_in] -> float32[rows, features_out]."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self.linear(x))


def get_inputs() -> list[torch.Tensor]:
    """One batch of vectors, standard normal."""
    return [torch.randn(rows, features_in)]


def get_init_inputs() -> list[object]:
    """features_in and features_out."""
    return [features_in, features_out]
