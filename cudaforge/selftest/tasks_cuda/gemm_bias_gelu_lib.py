"""gelu(x @ weight.T + bias) in fp32."""

import torch
from torch import nn

rows, features_in, features_out = 2048, 1024, 2048

CUDAFORGE = {"allow_libraries": True}


class Model(nn.Module):
    def __init__(self, features_in, features_out):
        super().__init__()
        self.linear = nn.Linear(features_in, features_out)

    def forward(self, x):
        return nn.functional.gelu(self.linear(x))


def get_inputs():
    return [torch.randn(rows, features_in)]


def get_init_inputs():
    return [features_in, features_out]
