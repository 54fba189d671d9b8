"""The tiny model that `make train-tiny` trained, served by the real vLLM: budgets that change what it can do.

`tests/vllm/trained` is what benchmarks.train_tiny made of seed 0 (stage `mixed`), in bfloat16; its card
beside it says how it was made.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings
from scorers.answers import verify
from tests.serving import serving_in_thread
from tests.vllm.server import VllmServer, serve
from training.config import read_config
from training.data.sources import held_out
from training.types import Problem

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "vllm" / "trained"
CONFIG = read_config(ROOT / "training" / "configs" / "tiny.toml")
QUESTIONS = 60


@pytest.fixture(scope="module")
def trained_server(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A vLLM with the trained model."""
    log = tmp_path_factory.mktemp("trained") / "vllm.log"
    with serve(vllm_python, MODEL, log, context=1024) as server:
        yield server


@pytest.fixture(scope="module")
def url(trained_server: VllmServer) -> Iterator[str]:
    """A gateway before it, configured as the model was trained."""
    settings = Settings.model_validate(
        {
            "upstream": HttpUrl(f"{trained_server.base_url}/v1"),
            "family": CONFIG.model.family,
            "levels": {name: table.model_dump(exclude_none=True) for name, table in CONFIG.levels.items()},
        }
    )
    with serving_in_thread(create_app(settings)) as base:
        yield base


def asked(url: str, budget: str, **more: Any) -> list[tuple[Problem, dict[str, Any]]]:
    """The held-out questions, never trained on, and what came back for each at a budget."""
    rows = held_out(CONFIG.held_out.sources, QUESTIONS)

    async def all_of_them() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:

            async def one(row: Problem) -> dict[str, Any]:
                body = {"messages": [{"role": "user", "content": row.question}], "temperature": 0, **more}
                reply = await http.post(
                    "/v1/chat/completions", json=body, headers={"X-Reasoning-Budget": budget}
                )
                reply.raise_for_status()
                return dict(reply.json())

            return list(await asyncio.gather(*map(one, rows)))

    return list(zip(rows, asyncio.run(all_of_them()), strict=True))


def right(replies: list[tuple[Problem, dict[str, Any]]]) -> float:
    """The share of replies whose answer is right."""
    answers = [(reply["choices"][0]["message"]["content"], row.gold or "") for row, reply in replies]
    return sum(verify(answer, gold) is True for answer, gold in answers) / len(answers)


def thought(replies: list[tuple[Problem, dict[str, Any]]]) -> list[int]:
    """The thinking tokens of each reply."""
    return [reply["usage"]["completion_tokens_details"]["reasoning_tokens"] for _, reply in replies]


def test_thinking_makes_the_model_right(url: str) -> None:
    """At `high` it solves at least ten points more of the held-out sums than at `off`, in more tokens."""
    off, low, high = (asked(url, budget) for budget in ("off", "low", "high"))
    assert right(high) >= right(off) + 0.1
    assert max(thought(off)) == 0
    assert 0 < sum(thought(low)) < sum(thought(high))
    assert max(thought(high)) <= (CONFIG.budgets["high"].tokens or 0)


def test_a_vote_is_no_worse_than_the_samples_it_is_made_of(url: str) -> None:
    """At temperature 1 the majority of eight is right at least as often as one sample."""
    one = asked(url, "high", temperature=1, seed=1)
    eight = asked(url, "high", temperature=1, seed=1, scaling={"samples": 8, "stop": "none"})
    assert right(eight) >= right(one)
