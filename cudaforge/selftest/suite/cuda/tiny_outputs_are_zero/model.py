import torch
from torch import nn

from .kernel import softmax


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        softmax(x, out)
        return out
