"""Judges a kernel from Python: builds it, checks it on secret inputs, times it against eager and torch.compile.

The same as `cudaforge evaluate examples/tasks/layer_norm_bias.py examples/kernels/layer_norm_bias`. The kernel is
C++, so it runs on the CPU, also where there is a GPU.

python examples/02_evaluate_a_kernel.py
"""

from __future__ import annotations

from pathlib import Path

import cudaforge as cf

HERE = Path(__file__).parent


def main() -> None:
    evaluation = cf.evaluate(
        HERE / "tasks" / "layer_norm_bias.py", HERE / "kernels" / "layer_norm_bias", evaluator="local:cpu"
    )
    print(f"{evaluation.verdict} {evaluation.reason}".strip())
    for diagnostic in evaluation.diagnostics:
        print(f"  {diagnostic.file}:{diagnostic.line}: {diagnostic.message}")
    if evaluation.speedup and evaluation.time_us:
        eager = evaluation.speedup.eager
        print(
            f"  {evaluation.time_us:.0f} us a call, {eager.value:.2f}x over eager ({eager.low:.2f} - {eager.high:.2f})"
        )
    print(f"  isolation: {', '.join(evaluation.isolation)}")


if __name__ == "__main__":
    main()
