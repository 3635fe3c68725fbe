"""`python -m cudaforge` is the `cudaforge` command."""

from __future__ import annotations

from cudaforge.cli import main

if __name__ == "__main__":
    main()
