"""A kernel in use: from sources that were judged to an nn.Module in the user's own model.

What `load` gives runs in the user's process, outside of every cage: whoever loads a kernel trusts it as far as its
verification goes, and as any other code that a model wrote and a person may read.
"""

from __future__ import annotations

import copy
import fcntl
import functools
import hashlib
import importlib.util
import re
import sys
import types
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cudaforge.errors import KernelError
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

NO_BACKWARD = "This kernel has no backward pass"
_BACKWARD = re.compile(r"autograd\.Function|register_autograd")
_NATIVE = re.compile(r"load_inline|cpp_extension|\btriton\b|\bctypes\b|tvm_ffi|torch\.ops\b|\bcupy\b|\bnumba\b")
_COMMENT = re.compile(r"#[^\n]*|//[^\n]*")
_DEVICES = {Language.CUDA: "cuda", Language.TRITON: "cuda", Language.CPP: "cpu"}
"""Where a kernel's code runs; `module` kernels may run anywhere."""


class UsableKernel:
    """A kernel of a run, ready to be put in place of the module that the run was made for.

    `result.kernel` gives it. Sources and languages are those of `Kernel`; `verified` says whether the verification
    at the end of a run confirmed it, or only its screening.
    """

    def __init__(self, kernel: Kernel, task: Task, *, verified: bool, folder: Path) -> None:
        self.kernel = kernel
        self.task = task
        self.verified = verified
        self._folder = folder

    @property
    def id(self) -> str:
        """`k` and 16 hex digits: the hash of the sources."""
        return self.kernel.id

    @property
    def language(self) -> Language:
        """What it is written in."""
        return self.kernel.language

    @property
    def source(self) -> str:
        """The file that matters most: kernel.cu, kernel.cpp or model.py."""
        return self.kernel.source

    @property
    def files(self) -> dict[str, str]:
        """All sources by name."""
        return dict(self.kernel.files)

    def save(self, folder: Path | str) -> Path:
        """Writes the kernel as a package that needs torch and tvm-ffi alone; its last part is the package's name.

        Returns the folder. `from FOLDER import ModelNew` then works wherever its parent is on Python's path.
        """
        return self.kernel.write_package(Path(folder))

    def load(self, module: nn.Module, *, init: Sequence[Any] | None = None, check: bool = True) -> nn.Module:
        """Builds the kernel here and gives an nn.Module to be used in place of `module`.

        The result shares the module's Parameters and buffers, the same tensors under the same names: an optimizer
        step or a load_state_dict on one is seen by the other, unless the kernel keeps copies of its own, packed ones
        for example; then load it again after the weights have changed. It is on the module's device and in its train
        or eval mode. `module` itself is not changed.

        This executes the kernel, and the task's get_init_inputs and get_inputs, in this process and unconfined.

        The kernel computes forward passes of the task's shapes and dtypes, and has no backward pass unless it
        defines one. Where a gradient would be lost without a word, a call in train mode raises RuntimeError, and one
        in eval mode warns once; under torch.no_grad() or torch.inference_mode() there is nothing to lose.

        Args:
            module: an instance of what the run optimised, with whatever weights it has now.
            init: the constructor's arguments, where they differ from the task's get_init_inputs.
            check: compare with `module` on one draw of the task's inputs, on its device.

        Raises:
            KernelError: it does not build or load here, its parameters do not fit the module's (their names are
                told), or its output is another one.
        """
        import torch
        from torch import nn

        if not isinstance(module, nn.Module):
            raise KernelError(f"A {type(module).__name__} is not an nn.Module.", "Pass the module to be replaced.")
        tensors = [*module.parameters(), *module.buffers()]
        device = tensors[0].device if tensors else torch.device(_DEVICES.get(self.language, "cpu"))
        if _DEVICES.get(self.language, device.type) != device.type:
            raise KernelError(
                f"Kernel {self.id} is {self.language.value} and the module lies on {device}.",
                f'Move it first: module.to("{_DEVICES[self.language]}").',
            )
        package = self._import()
        try:
            with torch.random.fork_rng(devices=_gpus(device)), torch.device(device):
                scope = run_task(self.task.source, f"{self.task.name}.py")
                made = package.ModelNew(*(scope["get_init_inputs"]() if init is None else init))
        except Exception as error:
            raise KernelError(
                f"Kernel {self.id} does not load here: {type(error).__name__}: {error}",
                "The error is its own; `cudaforge doctor` shows what a build needs.",
            ) from error
        if not isinstance(made, nn.Module):
            raise KernelError(f"Kernel {self.id}: ModelNew is not an nn.Module.")
        made.to(device, getattr(torch, self.task.meta.dtype) if self.task.meta.dtype else None)
        _share(module, made, self.id)
        made.train(module.training)
        if check:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                _compare(module, made, scope["get_inputs"], device, self.task, self.id)
        text = "\n".join(_COMMENT.sub("", source) for source in self.kernel.files.values())
        if not _BACKWARD.search(text):
            # Native code loses every gradient, whatever comes after it; torch's own operations tell it of their output.
            ours = self.language is Language.MODULE and not _NATIVE.search(text)
            mind = functools.partial(_mind_gradients, [False], ours)
            if ours:
                made.register_forward_hook(mind, with_kwargs=True)
            else:
                made.register_forward_pre_hook(mind, with_kwargs=True)
        return made

    def _import(self) -> Any:
        """The kernel's package, imported under a name of its own, built once for each home."""
        name = f"cudaforge_kernel_{self.id}"
        if name in sys.modules:
            return sys.modules[name]
        folder = self._folder / self.id
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{self.id}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may write, build or import the same files now
            self.kernel.write_package(folder)
            return self._execute(name, folder)

    def _execute(self, name: str, folder: Path) -> Any:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        try:
            spec.loader.exec_module(package)
        except Exception as error:
            for entry in [entry for entry in sys.modules if entry == name or entry.startswith(f"{name}.")]:
                del sys.modules[entry]
            raise KernelError(
                f"Kernel {self.id} cannot be imported: {type(error).__name__}: {error}",
                "The error is its own; `cudaforge doctor` shows what a build needs.",
            ) from error
        return package

    def __repr__(self) -> str:
        how = "verified" if self.verified else "screened, not verified"
        return f"UsableKernel({self.id}, {self.language.value}, for {self.task.name}, {how})"

    def _repr_html_(self) -> str:
        html: str = import_module("cudaforge.notebook.display").html(self)
        return html


def run_task(source: str, file: str) -> dict[str, Any]:
    """Executes a task file in this process and gives its names. Raises whatever it raises."""
    module = types.ModuleType(f"cudaforge_task_{hashlib.sha256(source.encode()).hexdigest()[:16]}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source, file, "exec"), module.__dict__)
    return module.__dict__


def _share(module: nn.Module, made: nn.Module, kernel: str) -> None:
    """Puts the module's own Parameters and buffers in place of those of `made`. Raises KernelError."""
    from torch import nn

    wanted, mine = _tensors(module), _tensors(made)
    # One tensor under several names needs only one of them on the other side: the engine compares it once, too.
    alias = {id(mine[name]): wanted[name] for name in wanted.keys() & mine.keys()}
    there = {id(tensor) for tensor in alias.values()}
    problems = [f"the kernel lacks {n}" for n, t in wanted.items() if n not in mine and id(t) not in there]
    problems += [f"the module lacks {n}" for n, t in mine.items() if n not in wanted and id(t) not in alias]
    problems += [
        f"{name} is {wanted[name].dtype} {tuple(wanted[name].shape)} there and {own.dtype} {tuple(own.shape)} here"
        for name, own in mine.items()
        if name in wanted and (own.shape != wanted[name].shape or own.dtype != wanted[name].dtype)
    ]
    if problems:
        raise KernelError(
            f"Kernel {kernel} does not fit this module: {'; '.join(problems[:4])}.",
            "Pass a module of the kind that the run optimised, with the same constructor arguments and dtype.",
        )
    for name, own in mine.items():
        tensor = wanted.get(name, alias[id(own)])
        owner, _, leaf = name.rpartition(".")
        part = made.get_submodule(owner)
        part._parameters.pop(leaf, None)
        part._buffers.pop(leaf, None)
        if isinstance(tensor, nn.Parameter):
            part._parameters[leaf] = tensor
        else:
            part._buffers[leaf] = tensor


def _gpus(device: torch.device) -> list[torch.device]:
    """Whose random state is kept beside the processor's."""
    return [device] if device.type == "cuda" else []


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by all of their names."""
    found: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


def _compare(
    module: nn.Module, made: nn.Module, get_inputs: Any, device: torch.device, task: Task, kernel: str
) -> None:
    """Whether the kernel, with the module's own weights, gives its output. Restores what a train mode changes."""
    import torch
    from torch.utils import _pytree as pytree

    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.no_grad(), torch.random.fork_rng(devices=_gpus(device)):
        with torch.device(device):
            inputs = list(get_inputs())
        dtype = getattr(torch, task.meta.dtype) if task.meta.dtype else None

        def placed(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return value.to(device, dtype if dtype is not None and value.is_floating_point() else value.dtype)

        inputs = pytree.tree_map(placed, inputs)

        def output(of: nn.Module) -> list[Any]:
            torch.manual_seed(0)  # dropout in train mode
            try:
                leaves: list[Any] = pytree.tree_leaves(of(*copy.deepcopy(inputs)))
                return leaves
            finally:
                for buffer, before in kept:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)

        try:
            wanted, found = output(module), output(made)
        except Exception as error:
            raise KernelError(
                f"Kernel {kernel} cannot be compared with this module: {type(error).__name__}: {error}",
                "Pass a module that takes the task's inputs, or check=False.",
            ) from error
    if len(found) != len(wanted):
        raise KernelError(
            f"Kernel {kernel} gives {len(found)} outputs where this module gives {len(wanted)}.",
            "Is it the module that the run optimised, in the same mode?",
        )
    for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype:
            slack = 1e-3 if a.dtype in (torch.float32, torch.float64) else 3e-2
            scale = float(a.abs().max()) if a.numel() and a.is_floating_point() else 0.0
            if torch.allclose(a, b, rtol=slack, atol=slack * scale, equal_nan=True):
                continue
        elif not isinstance(a, torch.Tensor) and a == b:
            continue
        raise KernelError(
            f"Kernel {kernel} gives another output {index} than this module.",
            "Is it the module that the run optimised, in the same mode? In train mode dropout and the like count, too.",
        )


def _mind_gradients(
    told: list[bool], after: bool, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], *output: Any
) -> None:
    """Before each call or, where its output says whether it has one, `after` it: no gradient is lost without a word."""
    import torch

    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return
    from torch.utils import _pytree as pytree

    tensors = [*pytree.tree_leaves([arguments, named]), *module.parameters()]
    if not any(isinstance(value, torch.Tensor) and value.requires_grad for value in tensors):
        return
    if after and any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(output)):
        return
    if module.training:
        raise RuntimeError(
            f"{NO_BACKWARD}, so training through it would be silently wrong. "
            "Call .eval(), or torch.no_grad(), for inference; train with the original module, whose weights it shares."
        )
    if not told[0]:
        told[0] = True
        warnings.warn(
            f"{NO_BACKWARD}: its output carries no gradient. Use torch.no_grad() or torch.inference_mode().",
            UserWarning,
            stacklevel=2,
        )
