"""Cross-entropy of logits over many classes against class indices, averaged over the rows.

Eager writes the whole log-softmax, as large as the logits, only to pick one value per row; a kernel that
reads the logits once and keeps one number per row has a third of the traffic and nothing large to allocate.

Metadata stands beside this file, in cross_entropy.toml, with a second workload whose rows are not aligned.
"""

import torch
from torch import nn
from torch.nn import functional

rows = 256
classes = 32000


class Model(nn.Module):
    """logits: float32[rows, classes], targets: int64[rows] -> float32[]."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, targets)


def get_inputs() -> list[torch.Tensor]:
    """Standard normal logits and a class for each row."""
    return [torch.randn(rows, classes), torch.randint(0, classes, (rows,))]


def get_init_inputs() -> list[object]:
    """The constructor takes nothing."""
    return []
