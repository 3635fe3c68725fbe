"""CudaForge in a notebook: rich displays, plots, live progress, cell magics. docs/notebooks.md shows them.

Every module says what it needs of the `notebook` extra; without the extra the rest of CudaForge works, and displays
do without highlighting.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from cudaforge.errors import UsageError


def need(module: str, what: str) -> ModuleType:
    """Imports a module of the `notebook` extra. Raises UsageError where it is missing, saying `what` needs it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UsageError(f"{what} needs {package}.", "Install it: pip install 'cudaforge[notebook]'") from None
