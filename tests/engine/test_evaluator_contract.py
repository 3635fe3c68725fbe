"""The rules of the Evaluator port, over a small evaluator itself and over the same one behind a spool."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from support.evaluator_contract import RULES, Case, Rule, keep
from support.small_evaluator import SmallEvaluator, small_kernel, small_task

from cudaforge.engine.spool import SpoolEvaluator, serve

CASE = Case(task=small_task(), good=small_kernel(), broken=small_kernel("broken"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_small_evaluator_keeps(rule: Rule) -> None:
    asyncio.run(keep(rule, SmallEvaluator(), CASE))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_spooled_evaluator_keeps(rule: Rule, tmp_path: Path) -> None:
    async def whole() -> None:
        server = asyncio.create_task(serve(tmp_path, SmallEvaluator(), poll_s=0.01))
        while not any((tmp_path / "evaluators").glob("*")):
            await asyncio.sleep(0.01)
        try:
            await keep(rule, SpoolEvaluator(tmp_path, wait_s=10, poll_s=0.01), CASE)
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server

    asyncio.run(whole())
