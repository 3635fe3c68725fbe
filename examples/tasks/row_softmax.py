"""Softmax over the rows of a matrix: every row becomes positive and sums to one.

The least that must move is the matrix in and the matrix out, 48 MiB in all, so memory sets the floor. Eager
already runs one fused operator here: what is left to win is how often a row is read, how exp is computed
and how the output is written.
"""

import torch
from torch import nn

rows = 3072
columns = 2048

CUDAFORGE = {
    "notes": "Rows are independent and contiguous. Values may be large: subtract the row's maximum before exp.",
}


class Model(nn.Module):
    """x: float32[rows, columns] -> float32[rows, columns]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, dim=1)


def get_inputs() -> list[torch.Tensor]:
    """One matrix of standard normal values."""
    return [torch.randn(rows, columns)]


def get_init_inputs() -> list[object]:
    """The constructor takes nothing."""
    return []
