"""The tiny model of `make train-tiny` on the real vLLM: its budgets change what it can solve.

`tests/vllm/trained` is the result of benchmarks.train_tiny with seed 0 (stage `mixed`), in bfloat16. The card
beside it describes the run.
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
    """Start a vLLM with the trained model."""
    log = tmp_path_factory.mktemp("trained") / "vllm.log"
    with serve(vllm_python, MODEL, log, context=1024) as server:
        yield server


@pytest.fixture(scope="module")
def url(trained_server: VllmServer) -> Iterator[str]:
    """Serve a gateway in front of it, with the settings of the training."""
    settings = Settings.model_validate(
        {
            "upstream": HttpUrl(f"{trained_server.base_url}/v1"),
            "family": CONFIG.model.family,
            "levels": {name: table.model_dump(exclude_none=True) for name, table in CONFIG.levels.items()},
        }
    )
    with serving_in_thread(create_app(settings)) as base:
        yield base


def ask_all(url: str, budget: str, **more: Any) -> list[tuple[Problem, dict[str, Any]]]:
    """Ask the held-out questions at a budget; return the problems and the replies."""
    problems = held_out(CONFIG.held_out.sources, QUESTIONS)

    async def post_all() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:

            async def post(problem: Problem) -> dict[str, Any]:
                body = {"messages": [{"role": "user", "content": problem.question}], "temperature": 0, **more}
                reply = await http.post(
                    "/v1/chat/completions", json=body, headers={"X-Reasoning-Budget": budget}
                )
                reply.raise_for_status()
                return dict(reply.json())

            return list(await asyncio.gather(*map(post, problems)))

    return list(zip(problems, asyncio.run(post_all()), strict=True))


def accuracy(replies: list[tuple[Problem, dict[str, Any]]]) -> float:
    """Return the share of replies with a right answer."""
    answers = [(reply["choices"][0]["message"]["content"], problem.gold or "") for problem, reply in replies]
    return sum(verify(answer, gold) is True for answer, gold in answers) / len(answers)


def thinking_tokens(replies: list[tuple[Problem, dict[str, Any]]]) -> list[int]:
    """Return the thinking tokens of each reply."""
    return [reply["usage"]["completion_tokens_details"]["reasoning_tokens"] for _, reply in replies]


def test_thinking_makes_the_model_right(url: str) -> None:
    """At `high` it solves at least ten points more of the held-out sums than at `off`, with more tokens."""
    off, low, high = (ask_all(url, budget) for budget in ("off", "low", "high"))
    assert accuracy(high) >= accuracy(off) + 0.1
    assert max(thinking_tokens(off)) == 0
    assert 0 < sum(thinking_tokens(low)) < sum(thinking_tokens(high))
    assert max(thinking_tokens(high)) <= (CONFIG.budgets["high"].tokens or 0)


def test_a_vote_is_no_worse_than_one_of_its_samples(url: str) -> None:
    """At temperature 1 the majority of eight is right at least as often as one sample."""
    one = ask_all(url, "high", temperature=1, seed=1)
    eight = ask_all(url, "high", temperature=1, seed=1, scaling={"samples": 8, "stop": "none"})
    assert accuracy(eight) >= accuracy(one)
