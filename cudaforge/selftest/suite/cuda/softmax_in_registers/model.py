import torch
from torch import nn

from .kernel import softmax


class ModelNew(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        softmax(x, y)
        return y
