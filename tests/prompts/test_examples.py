"""The worked examples are real: what a compiler and a torch here can build is built and run."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cudaforge.agents.coder import parse_kernel
from cudaforge.kernel import Kernel, Language, check_model_py
from cudaforge.kernel_loader import compile_command
from cudaforge.task import Task
from cudaforge_prompts import example

KINDS = [("cuda", "cuda"), ("cpp", "cpu"), ("triton", "cuda"), ("module", "cuda"), ("module", "cpu")]


def kernel_of(language: str, kind: str) -> Kernel:
    files = example(language, kind)
    return Kernel.of(language, {name: text for name, text in files.items() if name != "reference.py"})


def import_from(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("language", "kind"), KINDS)
def test_every_language_has_an_example_that_makes_a_kernel(language: str, kind: str) -> None:
    files = example(language, kind)
    assert next(iter(files)) == "reference.py"
    Task.parse(files["reference.py"])
    kernel = kernel_of(language, kind)
    assert kernel.language is Language(language)
    check_model_py(kernel.files["model.py"])


@pytest.mark.parametrize(("language", "kind"), KINDS)
def test_an_example_given_back_as_a_reply_is_the_same_kernel(language: str, kind: str) -> None:
    kernel = kernel_of(language, kind)
    reply = "\n".join(f"`{name}`:\n```\n{text}```" for name, text in kernel.files.items())
    assert parse_kernel(reply, Language(language)).files == kernel.files


def test_an_unknown_language_has_no_example() -> None:
    with pytest.raises(KeyError, match="fortran"):
        example("fortran")
    with pytest.raises(KeyError):
        example("../templates")


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_the_cpp_example_builds_and_computes_what_its_reference_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    package = kernel_of("cpp", "cpu").write_package(tmp_path / "add_example")
    model = import_from("add_example", package / "__init__.py").ModelNew()
    reference = tmp_path / "add_reference.py"
    reference.write_text(example("cpp")["reference.py"])
    task = import_from("add_reference", reference)
    for inputs in ([torch.rand(3, 5), torch.rand(3, 5)], [torch.rand(0), torch.rand(0)], task.get_inputs()):
        assert torch.equal(model(*inputs), task.Model()(*inputs))


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_the_cuda_example_compiles(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cu"
    source.write_text(kernel_of("cuda", "cuda").source)
    command = compile_command(source, tmp_path / "kernel.so", ["-Werror=all-warnings"], "sm_90a")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores" in done.stderr


@pytest.mark.gpu
def test_the_cuda_example_computes_what_its_reference_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    package = kernel_of("cuda", "cuda").write_package(tmp_path / "add_cuda_example")
    model = import_from("add_cuda_example", package / "__init__.py").ModelNew()
    for shape in ((3, 5), (1,), (4096, 1000)):
        a, b = torch.rand(shape, device="cuda"), torch.rand(shape, device="cuda")
        assert torch.equal(model(a, b), a + b)


@pytest.mark.gpu
@pytest.mark.parametrize("language", ["triton", "module"])
def test_the_one_file_examples_compute_what_their_reference_does(language: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if language == "triton":
        pytest.importorskip("triton")
    file = tmp_path / "one_file.py"
    file.write_text(example(language)["model.py"])
    model = import_from(f"one_file_{language}", file).ModelNew()
    a, b = torch.rand(33, 1000, device="cuda"), torch.rand(33, 1000, device="cuda")
    assert torch.equal(model(a, b), a + b)
