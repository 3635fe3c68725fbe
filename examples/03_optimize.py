"""Optimises a task from Python. The models' replies come from a recording; building, checking and timing are live.

The same as `cudaforge demo --language cpp`. With `coder="openai:MODEL"` it is a run of your own; cudaforge.wiring
documents the names of models and evaluators.

python examples/03_optimize.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import sys

from cudaforge import Budget, Language, Run, Task, examples, wiring
from cudaforge.trace import RunSpec


def optimize(rounds: int | None) -> Run:
    """One run, kept in CUDAFORGE_HOME under its id. Ctrl-C stops it; `wiring.resume` goes on."""
    example = examples.find(examples.DEFAULT, "cpp")
    print(example.announcement())
    spec = RunSpec(
        task=Task.load(example.task),
        language=Language.CPP,
        coder=f"recorded:{example.recording}",
        judge=f"recorded:{example.recording}",
        evaluator="local:cpu",
        budget=Budget(rounds=rounds or example.rounds),
    )
    home = wiring.resolve_home()
    store = wiring.open_store(home)
    try:
        return asyncio.run(wiring.optimize(spec, store, home))
    finally:
        store.close()


def main() -> None:
    run = optimize(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    outcome = run.outcome
    print(f"run {run.id}: {run.state}, {outcome.reason if outcome else run.error or run.waiting_for}")
    if outcome and outcome.win and outcome.speedup:
        eager = outcome.speedup.eager
        print(
            f"  kernel {outcome.kernel}: {eager.value:.2f}x over eager ({eager.low:.2f} - {eager.high:.2f}), verified"
        )
    else:
        print("  no verified win")


if __name__ == "__main__":
    main()
