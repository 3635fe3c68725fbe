"""From a slow module to a kernel in use inside of a model, step by step; the Coder is whoever writes the kernel.

The module is written down as a task, the kernel (here the one in examples/kernels) is judged, branched from and put
in the module's place. With `coder="openai:MODEL"`, session.draft(), session.judge() and session.revise("...") ask.

python examples/05_a_session.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import cudaforge as cf
from cudaforge.evaluation import EvaluateOptions

KERNEL = cf.Kernel.load(Path(__file__).parent / "kernels" / "layer_norm_bias")


class Norm(nn.Module):
    """Layer normalisation, written out as one would in a model of one's own."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.rand(features) + 0.5)
        self.bias = nn.Parameter(torch.randn(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(dim=-1, keepdim=True)
        variance = (centered * centered).mean(dim=-1, keepdim=True)
        return centered * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def main() -> None:
    model = nn.Sequential(nn.Linear(64, 1024), Norm(1024, 1e-5), nn.ReLU()).eval()
    norm, x = model[1], torch.randn(2048, 1024)
    quick = EvaluateOptions(trials=2, time_budget_s=0.1, compile_baseline=False)
    with cf.Session(norm, x, language="cpp", evaluator="local:cpu", options=quick) as session:
        print(f"{session.task.name}: {len(session.task.source.splitlines())} lines, run {session.id}")
        session.edit({**KERNEL.files, "kernel.cpp": "int oops = ;"})
        session.undo()  # taken back before it was evaluated
        session.edit(KERNEL)
        evaluation = session.evaluate()
        print(f"  {evaluation.verdict}: {evaluation.time_us:.0f} us a call")
        print(session.result.to_dataframe()[["action", "base", "verdict", "speedup"]])

        kernel = session.result.kernel
        assert kernel is not None
        model[1] = kernel.load(norm)
    with torch.inference_mode():
        inputs = torch.randn(16, 64)
        same = torch.allclose(model(inputs), torch.relu(norm(model[0](inputs))), atol=1e-4)
    print(f"  in use: the model's output is {'the same' if same else 'another'}")


if __name__ == "__main__":
    main()
