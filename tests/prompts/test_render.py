import subprocess
import sys

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from cudaforge_prompts import render


def test_a_missing_name_is_an_error_and_never_an_empty_space() -> None:
    with pytest.raises(UndefinedError, match="hint"):
        render("reask", error="no code block")


def test_an_unknown_template_is_an_error() -> None:
    with pytest.raises(TemplateNotFound):
        render("dream")


def test_values_are_neither_escaped_nor_rendered_again() -> None:
    assert "a < b && {{ c }}" in render("reask", error="a < b && {{ c }}", hint="")


def test_the_package_needs_jinja_alone() -> None:
    code = (
        "import sys, cudaforge_prompts;"
        "bad = {'pydantic', 'torch', 'cudaforge', 'cudaforge_profiling'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
