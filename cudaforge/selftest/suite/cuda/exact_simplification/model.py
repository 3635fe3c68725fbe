import torch
from torch import nn

from .kernel import matmul_row_sum


class ModelNew(nn.Module):
    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out, bias=False)

    def forward(self, x):
        sums = torch.zeros(x.size(1), device=x.device)
        out = torch.empty(x.size(0), device=x.device)
        matmul_row_sum(x, self.linear.weight, sums, out)
        return out
