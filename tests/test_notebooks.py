"""The example notebooks run from top to bottom as written, in a real kernel, and are committed with their outputs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
CPU, GPU = NOTEBOOKS / "01_faster_on_the_cpu.ipynb", NOTEBOOKS / "02_profile_and_edit_on_a_gpu.ipynb"
LARGEST = 1 << 20
"""Bytes of a notebook with its outputs."""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook with new outputs; a cell that raises fails the test. Its kernel has the test's CUDAFORGE_HOME."""
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: NotebookNode) -> str:
    """All that a cell shows, as one text."""
    texts: list[str] = []
    for output in cell.outputs:
        data: dict[str, Any] = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(texts)


def showing(notebook: NotebookNode, source: str) -> Iterator[str]:
    """What the cells show whose source has this in it."""
    found = [shown(cell) for cell in code_cells(notebook) if source in cell.source]
    assert found, f"no cell has {source!r}"
    yield from found


@pytest.mark.timeout(900)
def test_the_cpu_notebook_goes_from_a_slow_module_to_a_kernel_in_use(tmp_path: Path) -> None:
    notebook = executed(CPU, tmp_path)
    (followed,) = showing(notebook, "cf.optimize(")
    assert "BUILD_FAILED" in followed and "INCORRECT" in followed and "PASSED" in followed
    assert "over eager" in followed and ">done<" in followed
    (used,) = showing(notebook, "torch.allclose(")
    assert "same output: True" in used and "same weights: True" in used
    (plotted,) = [cell for cell in code_cells(notebook) if "plot_history" in cell.source]
    assert any("image/png" in output.get("data", {}) for output in plotted.outputs)
    broken, mended = showing(notebook, "%%cpp_kernel")
    cell = next(cell for cell in code_cells(notebook) if "%%cpp_kernel" in cell.source)
    line = next(number for number, text in enumerate(cell.source.splitlines(), 1) if "sqrt(square /" in text)
    assert f"cell:{line}:" in broken and "BUILD_FAILED" in broken
    assert "PASSED" in mended


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_the_gpu_notebook_profiles_and_edits_a_kernel(tmp_path: Path) -> None:
    notebook = executed(GPU, tmp_path)
    verdicts = list(showing(notebook, "session.evaluate()"))
    assert "BUILD_FAILED" in verdicts[0] and "INCORRECT" in verdicts[1]
    assert all("PASSED" in text for text in verdicts[2:])
    (edited,) = showing(notebook, "%%cuda_kernel")
    assert "PASSED" in edited
    assert "Speed of light" in "".join(showing(notebook, "session.profile()"))
    (finished,) = showing(notebook, "session.optimize(")
    assert "over eager" in finished and "verified" in finished and ">done<" in finished


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_is_valid_small_and_read_in_ten_minutes(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    assert len(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split()) < 1000
    for cell in code_cells(notebook):
        if not cell.source.startswith("%%"):
            ast.parse(cell.source.replace("%load_ext", "# %load_ext"))
    text = path.read_text()
    assert "<script" not in text and "/root/" not in text and "/home/" not in text


def test_notebooks_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:2]) for path in ALL] == list(range(1, len(ALL) + 1))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_the_outputs_of_one_run_from_top_to_bottom(path: Path) -> None:
    cells = code_cells(read(path))
    counts = [cell.execution_count for cell in cells]
    if path == GPU and counts[0] is None:
        pytest.skip("not executed on a GPU yet")
    assert counts == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
