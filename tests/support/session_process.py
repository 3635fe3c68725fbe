"""A session in a process of its own, which is killed while it evaluates: `session_process.py HOME SPOOL RECORDING`.

It drafts, evaluates, asks the Judge and has the draft revised, says `written` and its run's id, waits for a line, and
evaluates: with nobody serving the spool it waits there until it is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.scripted import TASK_SOURCE

import cudaforge as cf


def main(home: str, spool: str, model: str) -> None:
    task = cf.Task.parse(TASK_SOURCE, name="add-one")
    session = cf.Session(task, coder=model, language="module", evaluator=f"spool:{spool}", home=Path(home))
    session.draft()
    session.evaluate()
    session.judge()
    session.revise("once over the row")
    print("written", session.id, flush=True)
    sys.stdin.readline()
    session.evaluate()


if __name__ == "__main__":
    main(*sys.argv[1:])
