"""Settings are checked when they are given, and what doctor shows holds no secret."""

from __future__ import annotations

import pytest

from cudaforge.errors import UsageError
from cudaforge.llm.settings import OPENAI_URL, OpenAISettings, openai_access, public_url


def test_reads_settings_from_a_command_line() -> None:
    settings = OpenAISettings.parse({"temperature": "0.5", "max_retries": "3"})
    assert (settings.temperature, settings.max_retries) == (0.5, 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": 9}, "temperature"),
        ({"nope": 1}, "nope"),
        ({"usd_per_million_input": 1}, "go together"),
        ({"usd_per_million_cached": 1}, "needs usd_per_million_input"),
        ({"total_timeout_s": 0}, "total_timeout_s"),
    ],
)
def test_refuses_what_is_unknown_or_out_of_range(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        OpenAISettings.parse(values)


def test_access_tells_what_is_there_and_never_the_key() -> None:
    access = openai_access({"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": "https://me:pw@host/v1?token=t"})
    assert access.key_present
    assert (access.base_url, access.base_url_from, access.advice) == ("https://host/v1", "OPENAI_BASE_URL", "")
    assert "sk-secret" not in access.model_dump_json()


def test_access_without_anything_says_what_to_set() -> None:
    access = openai_access({"OPENAI_API_KEY": "  "})
    assert not access.key_present
    assert access.base_url == OPENAI_URL
    assert "OPENAI_API_KEY" in access.advice


def test_a_server_of_ones_own_needs_no_key() -> None:
    assert openai_access({"OPENAI_BASE_URL": "http://localhost:11434/v1"}).advice == ""


def test_public_url_keeps_only_what_is_not_secret() -> None:
    assert public_url("http://u:p@h:1/v1/?k=s#f") == "http://h:1/v1"


def test_access_to_no_address_says_what_to_set() -> None:
    access = openai_access({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://me:pw@[::"})
    assert "OPENAI_BASE_URL" in access.advice
    assert "pw" not in access.model_dump_json()
