"""Reads a finished or unfinished run from the store: its rounds, what the models were asked, what happened when.

The same as `cudaforge show RUN`, as objects. Run 03 first.

python examples/04_read_the_trace.py [RUN]
"""

from __future__ import annotations

import sys

from cudaforge import wiring
from cudaforge.ports import Store
from cudaforge.trace import Plan, Run


def show(store: Store, run: Run) -> None:
    print(f"run {run.id}: {run.spec.task.name} in {run.spec.language}, {run.state}")
    for attempt in store.attempts(run.id):
        time = f"{attempt.time_us:.0f} us" if attempt.time_us else attempt.reason or attempt.reply_error
        print(f"  round {attempt.round} {attempt.action}: {attempt.verdict or 'no kernel'}, {time}")
        if isinstance(attempt.advice, Plan):
            print(f"    the Judge saw {attempt.advice.bottleneck!r} and advised {attempt.advice.method!r}")
        kernel = store.kernel(attempt.kernel) if attempt.kernel else None
        if kernel:
            print(f"    {kernel.id}: {', '.join(f'{name} {len(text)} B' for name, text in kernel.files.items())}")
    for call in store.calls(run.id):
        asked = sum(len(message.content) for message in call.messages)
        print(f"  {call.key}: {call.purpose}, {asked} characters asked, {len(call.reply or '')} answered, {call.state}")
    for stored in store.events(run.id):
        print(f"  event {stored.id} {stored.at:%H:%M:%S} {stored.event.type}")


def main() -> None:
    store = wiring.open_store()
    try:
        show(store, wiring.find_run(store, sys.argv[1] if len(sys.argv) > 1 else "last"))
    finally:
        store.close()


if __name__ == "__main__":
    main()
