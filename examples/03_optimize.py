"""Optimises a task from Python. The models' replies come from a recording; building, checking and timing are live.

The same as `cudaforge demo --language cpp`. With `coder="openai:MODEL"` it is a run of your own; in place of the path
it takes a live nn.Module and example inputs. docs/python.md has the rest.

python examples/03_optimize.py [ROUNDS]
"""

from __future__ import annotations

import sys

import cudaforge as cf
from cudaforge import examples


def main() -> None:
    example = examples.find(examples.DEFAULT, "cpp")
    print(example.announcement())
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else example.rounds
    result = cf.optimize(
        example.task, coder=f"recorded:{example.recording}", rounds=rounds, language="cpp", evaluator="local:cpu"
    )
    print(f"run {result.id}: {result.state}. {result.message}")
    print(result.to_dataframe()[["action", "verdict", "time_us", "speedup", "low", "high"]])


if __name__ == "__main__":
    main()
