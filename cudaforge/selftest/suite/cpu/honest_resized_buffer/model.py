from torch import nn

from .kernel import square


class ModelNew(nn.Module):
    def forward(self, x):
        x = x.contiguous()
        out = x.new_empty(1).resize_(x.shape)
        square(x, out)
        return out
