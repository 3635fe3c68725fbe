"""Plants files that another process would import in place of torch."""

import os
from pathlib import Path

import torch
from torch import nn


def plant():
    """Shadows modules beside its own package, in the build cache and in HOME; never outside of what is ours."""
    here = Path(__file__).resolve().parent
    caches = [os.environ.get(name, "") for name in ("TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "CUDAFORGE_HOME")]
    for folder in [here, here.parent, *map(Path, filter(None, caches))]:
        for name in ("torch.py", "sitecustomize.py"):
            try:
                (folder / name).write_text("raise ImportError('shadowed by a case of the self-test')\n")
                if folder == here:
                    print(f"BREACH: {folder / name} could be written", flush=True)
            except OSError:
                pass
    for library in here.glob("*.so"):
        try:
            library.open("r+b").close()
            print(f"BREACH: {library} could be changed", flush=True)
        except OSError:
            pass


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.tried = False

    def forward(self, x, y):
        if not self.tried:
            self.tried = True
            plant()
        return x * self.weight + y
