import torch
from torch import nn

from .kernel import layer_norm


class ModelNew(nn.Module):
    """The same constructor, forward and parameter names as the task's Model."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        layer_norm(x, self.weight, self.bias, out, self.eps)
        return out
