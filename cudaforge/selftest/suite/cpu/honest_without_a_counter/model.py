import torch
from torch import nn

from .kernel import bn_relu


class Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bn = Norm(channels)

    def forward(self, x):
        out = torch.empty_like(x)
        n = self.bn
        bn_relu(x.contiguous(), n.weight.detach(), n.bias.detach(), n.running_mean, n.running_var, 1e-5, out)
        return out
