import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.graph = self.x = self.y = self.out = None

    def forward(self, x, y):
        if self.graph is None or self.x.shape != x.shape:
            self.x, self.y = x.clone(), y.clone()
            self.out = torch.empty_like(x)
            scale_add(self.x, self.weight, self.y, self.out)  # once before the capture
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                scale_add(self.x, self.weight, self.y, self.out)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        return self.out.clone()
