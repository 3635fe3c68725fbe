"""Builds, checks, times and profiles kernels in processes that do not trust them.

| process    | module        | trusted | holds                                                             |
|------------|---------------|---------|-------------------------------------------------------------------|
| supervisor | supervisor.py | yes     | secret seeds, lent buffers, expected outputs, comparison, verdict  |
| reference  | reference.py  | no      | the task: makes inputs, parameters, expected outputs               |
| its twins  | reference.py  | no      | the task, only called: baselines on the CPU, the A/A control       |
| builder    | builder.py    | no      | sources in, binary out; compilers, no inputs                       |
| candidate  | candidate.py  | no      | its own package; the inputs and parameters it was lent             |

They speak length-prefixed JSON (protocol.py); tensors travel in lent memory (memory.py), never as pickles.
"""
