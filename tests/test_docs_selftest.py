"""docs/selftest.md says what the suite says: classes, fields of a case, outcomes; docs/cli.md shows its JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from cudaforge.selftest.cases import Case, ExploitClass, Status, classes
from cudaforge.selftest.run import Finding, Report, Uncovered

DOCS = Path(__file__).resolve().parents[1] / "docs"
DOCUMENT = (DOCS / "selftest.md").read_text(encoding="utf-8")


def row(known: ExploitClass) -> str:
    """A class as its line in the table."""
    reasons = [f"{name}: {why}" for name, why in (("CPU", known.cpu), ("CUDA", known.cuda)) if why]
    if known.cpu and known.cpu == known.cuda:
        reasons = [f"both: {known.cpu}"]
    return f"| {known.number} | {known.name} | {', '.join(known.layers)} | {'; '.join(reasons)} |"


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_table_of_classes_is_that_of_the_suite() -> None:
    listed = re.findall(r"^\| \d+ \|.*$", section("Classes"), re.MULTILINE)
    assert listed == [row(known) for known in classes()], "write what row() makes of each class"


def test_every_layer_is_explained_before_the_table() -> None:
    layers = {layer for known in classes() for layer in known.layers}
    assert set(re.findall(r"\*([a-z ]+)\*", section("Classes"))) == layers


def test_every_field_of_a_case_is_documented() -> None:
    given = {"name", "device", "kernel", "task_file"}  # by the folder, not by case.toml
    fields = set(Case.model_fields) - given | {"language", "flags"}
    assert set(re.findall(r"^\| `(\w+)` \|", section("Add a case"), re.MULTILINE)) == fields


def test_every_outcome_is_documented() -> None:
    assert set(re.findall(r"^\| `([a-z ]+)` \|", section("Read it"), re.MULTILINE)) == set(get_args(Status))


def test_the_documented_json_is_a_report_with_every_field() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8").split("\n## cudaforge selftest\n")[1].split("\n## ")[0]
    block = re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0]
    report = Report.model_validate_json(block)
    shown = json.loads(block)
    assert set(shown) == set(Report.model_fields)
    assert all(set(entry) == set(Finding.model_fields) for entry in shown["findings"])
    assert all(set(entry) == set(Uncovered.model_fields) for entry in shown["uncovered"])
    assert report.findings and report.uncovered
