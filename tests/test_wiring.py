"""The composition root: names in, objects behind the ports out."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted import ScriptedEvaluator, kernel_reply, scripted_spec

from cudaforge import wiring
from cudaforge.engine.local import LocalEvaluator
from cudaforge.engine.spool import SpoolEvaluator
from cudaforge.errors import ModelError, UsageError
from cudaforge.kernel import Language
from cudaforge.ports import Store
from cudaforge.trace import Run, RunSpec, RunState


@pytest.fixture
def store(cudaforge_home: Path) -> Iterator[Store]:
    opened = wiring.open_store()
    yield opened
    opened.close()


def spec(**changes: object) -> RunSpec:
    return scripted_spec(rounds=1).model_copy(update={"coder": "manual:", "judge": "manual:", **changes})


def test_models_are_built_by_provider(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text('title = ""\nmade_by = ""\nnote = ""\nlanguage = "cpp"\n')

    assert wiring.make_model("manual:").name == "manual:"
    assert wiring.make_model("manual").name == "manual:"
    assert wiring.make_model(f"recorded:{tmp_path}").name == f"recorded:{tmp_path.name}"
    here = {"base_url": "http://127.0.0.1:1/v1", "temperature": 0.5}
    assert wiring.make_model("openai:some/model:free", here).name == "openai:some/model:free"


@pytest.mark.parametrize("name", ["", "gpt-5", "openai:", "recorded:", "anthropic:x", ":x"])
def test_an_unknown_provider_is_a_usage_error_with_a_hint(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        wiring.make_model(name)
    assert "openai:NAME" in caught.value.hint


def test_an_unknown_setting_and_a_missing_key_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="heat"):
        wiring.make_model("openai:m", {"base_url": "http://127.0.0.1:1", "heat": 1})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        wiring.make_model("openai:m")


def test_evaluators_are_built_by_kind(tmp_path: Path) -> None:
    assert isinstance(wiring.make_evaluator("local:cuda:3", tmp_path), LocalEvaluator)
    assert isinstance(wiring.make_evaluator(f"spool:{tmp_path}", tmp_path), SpoolEvaluator)
    for wrong in ("", "ray", "spool:", "local:tpu", "local:cuda:x"):
        with pytest.raises(UsageError, match="Evaluator"):
            wiring.make_evaluator(wrong, tmp_path)


@pytest.mark.parametrize(
    ("evaluator", "language", "fitted"),
    [
        ("local", "cpp", "local:cpu"),
        ("local", "cuda", "local:cuda"),
        ("local", "module", "local"),
        ("local:cuda:1", "triton", "local:cuda:1"),
        ("spool:/s", "cpp", "spool:/s"),
    ],
)
def test_local_is_pinned_to_the_device_that_the_language_runs_on(evaluator: str, language: str, fitted: str) -> None:
    assert wiring.fit_evaluator(evaluator, Language(language)) == fitted


def test_the_language_follows_the_device_that_is_asked_for() -> None:
    assert wiring.choose_language(None, "local:cpu") is Language.CPP
    assert wiring.choose_language(None, "local:cuda:0") is Language.CUDA
    here = Language.CUDA if wiring.gpu_count() and wiring.find_nvcc() else Language.CPP
    assert wiring.choose_language(None, "local") is here
    for language, evaluator in ((None, "spool:/s"), ("cpp", "local:cuda"), ("cuda", "local:cpu"), ("rust", "local")):
        with pytest.raises(UsageError):
            wiring.choose_language(language, evaluator)


def test_a_run_is_stored_with_absolute_folders_and_a_short_id(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "recording.toml").write_text('title = ""\nmade_by = ""\nnote = ""\nlanguage = "cpp"\n')
    monkeypatch.chdir(tmp_path)
    run = wiring.create_run(spec(coder="recorded:rec"), store)

    assert re.fullmatch("r[0-9a-z]{10}", run.id)
    assert run.spec.coder == f"recorded:{tmp_path / 'rec'}"
    assert store.run(run.id) == run


def test_a_model_that_cannot_be_built_stores_nothing(store: Store) -> None:
    with pytest.raises(UsageError):
        wiring.create_run(spec(judge="nobody:x"), store)
    assert store.runs() == []


def test_runs_are_found_by_id_prefix_and_last(store: Store) -> None:
    with pytest.raises(UsageError, match="no run yet"):
        wiring.find_run(store, "last")
    for run_id in ("raaa0000001", "raaa0000002", "rbbb0000001"):
        store.create_run(Run(id=run_id, spec=spec()))

    assert wiring.find_run(store, "rb").id == "rbbb0000001"
    assert wiring.find_run(store, "raaa0000002").id == "raaa0000002"
    assert wiring.find_run(store, "last").id == "rbbb0000001"
    for reference, message in (("raaa", "fits 2 runs"), ("rz", "no run"), ("", "no run"), ("r%", "no run")):
        with pytest.raises(UsageError, match=message):
            wiring.find_run(store, reference)


def test_optimize_drives_a_run_to_its_end_with_a_given_evaluator(
    store: Store, tmp_path: Path, cudaforge_home: Path
) -> None:
    (tmp_path / "recording.toml").write_text('title = ""\nmade_by = ""\nnote = ""\nlanguage = "module"\n')
    (tmp_path / "coder-00.md").write_text(kernel_reply("time_us=50"))
    made = spec(coder=f"recorded:{tmp_path}")
    run = asyncio.run(wiring.optimize(made, store, cudaforge_home, ScriptedEvaluator()))

    assert run.state is RunState.DONE and run.outcome and run.outcome.win
    assert (cudaforge_home / wiring.CHECKPOINTS).is_file()
    again = asyncio.run(wiring.resume(run.id, store, cudaforge_home, ScriptedEvaluator()))
    assert again == run


def test_importing_wiring_loads_no_adapter_and_no_heavy_library() -> None:
    code = (
        "import sys, cudaforge.wiring\n"
        "heavy = {'torch', 'langgraph', 'openai', 'sqlmodel', 'sqlalchemy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
