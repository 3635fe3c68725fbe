import torch
from torch import nn

from .kernel import gather


class ModelNew(nn.Module):
    def forward(self, table, index):
        out = torch.empty(index.size(0), table.size(1))
        gather(table.contiguous(), index.contiguous(), out)
        return out
