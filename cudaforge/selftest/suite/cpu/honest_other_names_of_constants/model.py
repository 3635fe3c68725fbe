"""The same parameters in the same order under names of its own, folded into one multiplication and one addition."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mu", torch.zeros(channels))
        self.register_buffer("sigma2", torch.ones(channels))

    def forward(self, x):
        scale = self.gamma * torch.rsqrt(self.sigma2 + 1e-5)
        shape = (1, -1, 1, 1)
        return torch.relu_(torch.addcmul((self.beta - self.mu * scale).view(shape), x, scale.view(shape)))
