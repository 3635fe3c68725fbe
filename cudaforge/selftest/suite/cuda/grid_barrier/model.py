import torch
from torch import nn

from .kernel import max_scale


class ModelNew(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.state = None

    def forward(self, x):
        if self.state is None:
            self.state = torch.zeros(1024, dtype=torch.int32, device=x.device)  # arrivals, then a maximum for each block
        out = torch.empty_like(x)
        max_scale(x, out, self.state)
        return out
