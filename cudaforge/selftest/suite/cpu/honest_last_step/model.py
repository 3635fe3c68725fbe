import torch
from torch import nn

from .kernel import running


class ModelNew(nn.Module):
    def forward(self, x):
        h = torch.empty_like(x)
        running(x.contiguous(), h)
        return h[:, -1]
