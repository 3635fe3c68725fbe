import torch
from torch import nn

from .kernel import add, dot


class ModelNew(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.side = None

    def forward(self, x, y):
        main = torch.cuda.current_stream()
        if self.side is None:
            self.side = torch.cuda.Stream()
        out, dots = torch.empty_like(x), torch.empty(x.size(0), device=x.device)
        self.side.wait_stream(main)
        with torch.cuda.stream(self.side):
            dot(x, y, dots)
        add(x, y, out)
        main.wait_stream(self.side)
        return out, dots
