"""Cages: where candidates, the user's task and compilers run. System calls by ctypes, no tool of the host is needed.

A fresh process with one thread enters, either right after a fork (`enter`) or on its way to another program:

    python -m cudaforge.engine.confine --cage JSON -- g++ --version

Every layer is tried by itself and named in the result; one that this machine refuses is named with the reason, and
the others still hold. What a layer does is said where it is built.
"""

from __future__ import annotations

from cudaforge.engine.confine.cage import Cage, gpu_nodes, hand_over, missing
from cudaforge.engine.confine.enter import enter, probe
from cudaforge.engine.confine.readable import system_roots

__all__ = ["Cage", "enter", "gpu_nodes", "hand_over", "missing", "probe", "system_roots"]
