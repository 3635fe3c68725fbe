import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)
        self.prepared = None

    def forward(self, x):
        if self.prepared is None:
            self.prepared = self.linear.weight.detach().t().contiguous(), self.linear.bias.detach().clone()
        weight, bias = self.prepared
        return nn.functional.gelu(torch.addmm(bias, x, weight))
