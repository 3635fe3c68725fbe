import torch
from torch import nn

from .kernel import scale_add


class ModelNew(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.best = None

    def tune(self, x, y, out):
        times = {}
        for threads in (128, 256, 512):
            scale_add(x, self.weight, y, out, threads)
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(5):
                scale_add(x, self.weight, y, out, threads)
            end.record()
            end.synchronize()
            times[threads] = start.elapsed_time(end)
        return min(times, key=times.get)

    def forward(self, x, y):
        out = torch.empty_like(x)
        if self.best is None:
            self.best = self.tune(x, y, out)
        scale_add(x, self.weight, y, out, self.best)
        return out
