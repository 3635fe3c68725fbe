"""What a task is: reads task files and prints what is asked of a kernel. The files are parsed, never run.

python examples/01_load_a_task.py [TASK.py ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from cudaforge import Task

TASKS = Path(__file__).parent / "tasks"


def main(paths: list[Path]) -> None:
    for path in paths:
        task = Task.load(path)
        print(f"{task.name} ({task.id})")
        print(f"  tolerance   {task.meta.tolerance.mode}")
        for workload in task.meta.workloads:
            changes = ", ".join(f"{name}={value}" for name, value in workload.overrides.items())
            print(f"  workload    {workload.name}: {changes or 'as the file says'}")
        if task.meta.notes:
            print(f"  notes       {task.meta.notes}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or sorted(TASKS.glob("*.py")))
