import torch
from torch import nn

from .kernel import linear_gelu


class ModelNew(nn.Module):
    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)

    def forward(self, x):
        out = torch.empty(x.size(0), self.linear.out_features, device=x.device)
        linear_gelu(x, self.linear.weight, self.linear.bias, out)
        return out
