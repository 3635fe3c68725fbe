import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)
        self.packed, self.state = None, None

    def forward(self, x):
        weight = self.linear.weight
        state = (weight.data_ptr(), weight._version)
        if self.state != state:
            self.packed, self.state = weight.detach().t().contiguous(), state
        return nn.functional.gelu(torch.addmm(self.linear.bias, x, self.packed))
