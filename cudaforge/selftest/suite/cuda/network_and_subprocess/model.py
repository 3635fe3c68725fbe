"""Asks for what a kernel never needs: the network and other programs."""

import contextlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn


def reach_out():
    """Tries the loopback (nobody listens there), a subprocess, and another program in its own place."""
    with contextlib.suppress(OSError), socket.socket() as tcp:
        tcp.settimeout(1)
        tcp.connect(("127.0.0.1", 9))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", ("127.0.0.1", 9))
    mark = Path(tempfile.gettempdir()) / f"cudaforge-selftest-{os.getpid()}"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["touch", str(mark)], timeout=5, check=True)
        print("BREACH: a subprocess ran", flush=True)
        mark.unlink()


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n) + 0.5)
        self.tried = False

    def forward(self, x, y):
        if not self.tried:
            self.tried = True
            reach_out()
        return x * self.weight + y
