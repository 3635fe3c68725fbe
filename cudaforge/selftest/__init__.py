"""The suite of exploits: small kernels that cheat in every way we know, and honest ones that only look odd.

classes.toml lists the classes, suite/DEVICE/NAME/ holds one kernel each with what it shows (case.toml), tasks/ (CPU)
and tasks_cuda/ what the kernels are written for. cases.py reads them, run.py puts them through an Evaluator and counts
what was caught, naive.py is the conventional check that every exploit fools: without it, "caught" would mean nothing.
"""
