"""CudaForge turns a PyTorch module into a verified, faster kernel.

Importing this package has no side effect and imports neither torch nor langgraph; names load when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cudaforge.errors import CudaForgeError as CudaForgeError
    from cudaforge.evaluation import Evaluation as Evaluation
    from cudaforge.evaluation import Verdict as Verdict
    from cudaforge.inuse import UsableKernel as UsableKernel
    from cudaforge.kernel import Kernel as Kernel
    from cudaforge.kernel import Language as Language
    from cudaforge.python import evaluate as evaluate
    from cudaforge.python import evaluate_async as evaluate_async
    from cudaforge.python import load_run as load_run
    from cudaforge.python import optimize as optimize
    from cudaforge.python import optimize_async as optimize_async
    from cudaforge.python import profile as profile
    from cudaforge.python import profile_async as profile_async
    from cudaforge.python import runs as runs
    from cudaforge.results import RunResult as RunResult
    from cudaforge.session import Session as Session
    from cudaforge.task import Task as Task
    from cudaforge.trace import Budget as Budget
    from cudaforge.trace import Run as Run

__version__ = "0.1.0"

_PUBLIC = {
    "Budget": "cudaforge.trace",
    "CudaForgeError": "cudaforge.errors",
    "Evaluation": "cudaforge.evaluation",
    "Kernel": "cudaforge.kernel",
    "Language": "cudaforge.kernel",
    "Run": "cudaforge.trace",
    "RunResult": "cudaforge.results",
    "Session": "cudaforge.session",
    "Task": "cudaforge.task",
    "UsableKernel": "cudaforge.inuse",
    "Verdict": "cudaforge.evaluation",
    "evaluate": "cudaforge.python",
    "evaluate_async": "cudaforge.python",
    "load_run": "cudaforge.python",
    "optimize": "cudaforge.python",
    "optimize_async": "cudaforge.python",
    "profile": "cudaforge.python",
    "profile_async": "cudaforge.python",
    "runs": "cudaforge.python",
}

__all__ = [*_PUBLIC, "__version__"]  # noqa: PLE0604 - the names above


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cudaforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext cudaforge`: the cell magics `%%cuda_kernel` and `%%cpp_kernel`."""
    import_module("cudaforge.notebook.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext cudaforge`."""
    import_module("cudaforge.notebook.magics").unload(shell)
