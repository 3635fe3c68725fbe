"""`%load_ext cudaforge`: the cell magics `%%cuda_kernel` and `%%cpp_kernel`. Needs IPython."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from cudaforge import wiring
from cudaforge.background import Background
from cudaforge.errors import CudaForgeError, UsageError
from cudaforge.evaluation import EvaluateOptions
from cudaforge.kernel import Kernel, Language
from cudaforge.notebook.cell import Asked, CellResult, find_model, find_task, split_flags, unquoted

if TYPE_CHECKING:
    from cudaforge.ports import Evaluator

T = TypeVar("T")


class CellError(CudaForgeError):
    """An error as a notebook shows it: one sentence and the hint. Its cause is in `__cause__`."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self.__cause__).__name__}: {self.message}", *([self.hint] if self.hint else [])]


class Bench:
    """Evaluators that stay alive from cell to cell, so that a second cell finds reference and baseline measured. Those
    that are open when the notebook's kernel ends, end with it."""

    def __init__(self, make: Callable[[str], Evaluator] | None = None) -> None:
        self._make = make or self._at_home
        self._background: Background | None = None
        self._evaluators: dict[str, Evaluator] = {}

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Waits for a piece of work; Ctrl-C or the notebook's stop button cancels it."""
        if self._background is None:
            self._background = Background()
        return self._background.run(work)

    def evaluator(self, spec: str) -> Evaluator:
        """The evaluator of this name, made at its first use. Raises UsageError."""
        if spec not in self._evaluators:
            self._evaluators[spec] = self._make(spec)
        return self._evaluators[spec]

    @staticmethod
    def _at_home(spec: str) -> Evaluator:
        return wiring.make_evaluator(spec, wiring.resolve_home(), patient=True)

    def close(self) -> None:
        """Ends the evaluators' processes and the thread. Idempotent."""
        for evaluator in self._evaluators.values():
            self.run(evaluator.close)
        self._evaluators.clear()
        if self._background is not None:
            self._background.close()
            self._background = None


def _arguments(function: Any) -> Any:
    """The arguments that both magics take."""
    for each in (
        argument("--into", metavar="NAME", help="Put the result into this variable, too."),
        argument("--profile", action="store_true", help="Profile the kernel where it passes."),
        argument("--no-compile", action="store_true", help="Leave out torch.compile: the first cell comes sooner."),
        argument("--evaluator", help="local (the default), local:cpu, local:cuda:0 or spool:DIR."),
        argument("--flags", help='Optimisation flags for the compiler: --flags "-O3 -march=native".'),
        argument("--model", metavar="MODEL_PY", help="The path of model.py, or a variable with its text."),
        argument("task", metavar="TASK", help="A task file, or a variable: a Task, a RunResult or a Session."),
    ):
        function = each(function)
    return magic_arguments()(function)


@magics_class
class KernelMagics(Magics):
    """Builds, checks and times a cell against a task."""

    def __init__(self, shell: InteractiveShell, bench: Bench | None = None) -> None:
        super().__init__(shell)
        self._variables: dict[str, Any] = shell.user_ns
        self.bench = bench or Bench()

    @_arguments
    @cell_magic
    def cuda_kernel(self, line: str, cell: str) -> CellResult:
        """Take the cell as kernel.cu: build, check and time it against TASK."""
        return self._judge(Language.CUDA, parse_argstring(self.cuda_kernel, line), cell)

    @_arguments
    @cell_magic
    def cpp_kernel(self, line: str, cell: str) -> CellResult:
        """Take the cell as kernel.cpp: build, check and time it against TASK on the CPU."""
        return self._judge(Language.CPP, parse_argstring(self.cpp_kernel, line), cell)

    def _judge(self, language: Language, given: Any, cell: str) -> CellResult:
        try:
            if given.into and not given.into.isidentifier():
                raise UsageError(f"--into {given.into!r} is no name of a variable.")
            variables = self._variables
            asked = find_task(given.task, variables)
            model_py = find_model(given.model, variables, asked, language)
            files = {str(language.source_name): cell, "model.py": model_py}
            kernel = Kernel.of(language, files, split_flags(given.flags))
            if asked.session is not None:
                result = self._edit(asked, kernel, given)
            else:
                result = self.bench.run(lambda: self._look(asked, kernel, given))
        except CudaForgeError as error:
            raise CellError(error.message, error.hint) from error
        if given.into:
            self._variables[given.into] = result
        return result

    async def _look(self, asked: Asked, kernel: Kernel, given: Any) -> CellResult:
        spec = unquoted(given.evaluator or "local")
        evaluator = self.bench.evaluator(wiring.fit_evaluator(spec, kernel.language))
        found, seen = await wiring.look_with(
            evaluator,
            asked.task,
            kernel,
            key=f"notebook-{secrets.token_hex(6)}",
            options=EvaluateOptions(compile_baseline=not given.no_compile),
            metrics="core" if given.profile else None,
        )
        return CellResult(asked.task, kernel, found, seen.model_copy(update={"report": None}) if seen else None)

    def _edit(self, asked: Asked, kernel: Kernel, given: Any) -> CellResult:
        """The cell becomes a round of the session, which evaluates it with its own evaluator."""
        if kernel.language is not asked.session.run.spec.language:
            raise UsageError(
                f"The session's kernels are {asked.session.run.spec.language.value}, this cell is "
                f"{kernel.language.value}.",
                "Use the other magic, or start a session with the other language.",
            )
        if given.evaluator or given.no_compile:
            raise UsageError("A session has an evaluator of its own.", "Leave out --evaluator and --no-compile.")
        asked.session.edit(kernel)
        found = asked.session.evaluate()
        seen = asked.session.profile() if given.profile and found.passed else None
        return CellResult(asked.task, kernel, found, seen, asked.session.head)


def load(shell: InteractiveShell) -> None:
    """Registers the magics; a second time does nothing."""
    if not isinstance(shell.magics_manager.registry.get("KernelMagics"), KernelMagics):
        shell.register_magics(KernelMagics)


def unload(shell: InteractiveShell) -> None:
    """Ends the evaluators that cells have started, and takes the magics away."""
    magics = shell.magics_manager.registry.pop("KernelMagics", None)
    if isinstance(magics, KernelMagics):
        magics.bench.close()
        for name in ("cuda_kernel", "cpp_kernel"):
            shell.magics_manager.magics["cell"].pop(name, None)
