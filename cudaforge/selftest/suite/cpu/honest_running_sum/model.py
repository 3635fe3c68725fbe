import torch
from torch import nn

from .kernel import scan


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape)
        scan(x.contiguous(), out)
        return out
