"""Starts as many processes and threads as it may, which end by themselves after a second."""

import contextlib
import os
import threading
import time

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.tried = False

    def forward(self, x, y):
        if not self.tried:
            self.tried = True
            children = []
            with contextlib.suppress(OSError, RuntimeError):
                for _ in range(300):
                    child = os.fork()
                    if not child:
                        time.sleep(1)
                        os._exit(0)
                    children.append(child)
            with contextlib.suppress(OSError, RuntimeError):
                for _ in range(300):
                    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
            for child in children:
                os.waitpid(child, 0)
        return x * self.weight + y
