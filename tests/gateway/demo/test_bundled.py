"""The demo's own models: a policy and its checker on one embedded engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import ConfigError, Settings
from gateway.demo.bundled import CHECKER, JUDGE, REASONER, with_bundled
from tests.fakes import ScriptedUpstream, says
from tests.serving import serving

SUM = "State the final answer to the following arithmetic problem: 4 + 7 + 7 + 2 + 2 ="


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that serves both."""
    pytest.importorskip("xllamacpp")
    settings = with_bundled(Settings(embedded_slots=4, embedded_context=512))
    async with serving(create_app(settings)) as url, httpx.AsyncClient(base_url=url, timeout=120) as client:
        yield client


def test_another_engine_gets_no_adapters() -> None:
    """An operator who names an upstream, a model or adapters gets these and nothing else."""
    for settings in (
        Settings(upstream=HttpUrl("http://gpu-box:8000/v1")),
        Settings(embedded_model=Path("own.gguf")),
        Settings(embedded_adapters=(Path("own.gguf"),)),
    ):
        assert with_bundled(settings) is settings
    assert with_bundled(Settings()).embedded_adapters == (REASONER, JUDGE)
    assert CHECKER in with_bundled(Settings()).scorers


def test_the_small_models_answers_are_capped() -> None:
    """At the reserve where the operator says nothing: such a model may not find an end by itself."""
    assert with_bundled(Settings(answer_reserve=300)).answer_cap == 300
    assert with_bundled(Settings(answer_cap=70)).answer_cap == 70


def test_the_judges_gate_belongs_to_its_file(tmp_path: Path) -> None:
    """The shipped judge passes; other weights under its name are refused as a checker."""
    settings = with_bundled(Settings())
    assert create_app(settings, ScriptedUpstream(says("7"))).routes
    other = tmp_path / JUDGE.name
    other.write_bytes(REASONER.read_bytes())
    changed = settings.model_copy(update={"embedded_adapters": (REASONER, other)})
    with pytest.raises(ConfigError, match=rf"scorers\.{CHECKER}: .* is about other weights"):
        create_app(changed, ScriptedUpstream(says("7")))


@pytest.mark.embedded
@pytest.mark.parametrize(("answer", "verdict"), [("22", "yes"), ("21", "no")])
async def test_the_judge_tells_right_from_wrong(client: httpx.AsyncClient, answer: str, verdict: str) -> None:
    """The judge works out the sum again and says whether the answer equals its own."""
    body = {"model": JUDGE.stem, "messages": [{"role": "user", "content": f"{SUM} Is it {answer}?"}]}
    reply = await client.post(
        "/v1/chat/completions", json={**body, "temperature": 0}, headers={"X-Reasoning-Budget": "high"}
    )
    message = reply.json()["choices"][0]["message"]
    assert message["content"].strip() == verdict
    assert "20 + 2 = 22" in message["reasoning_content"]


@pytest.mark.embedded
async def test_the_judge_weighs_the_policys_samples(client: httpx.AsyncClient) -> None:
    """A right sample outweighs every other; the judge's tokens are counted apart."""
    body = {"model": REASONER.stem, "messages": [{"role": "user", "content": SUM}], "seed": 3}
    scaling = {"samples": 8, "scorer": CHECKER, "stop": "none", "trace": True}
    reply = await client.post(
        "/v1/chat/completions",
        json={**body, "scaling": scaling, "temperature": 1.5, "max_tokens": 96},
        headers={"X-Reasoning-Budget": "high"},
    )
    scaling_report = reply.json()["scaling"]
    assert (scaling_report["vote"]["method"], scaling_report["vote"]["scorer"]) == ("weighted", CHECKER)
    assert scaling_report["usage"]["scorer_tokens"] > 0
    trace = [sample for sample in scaling_report["trace"] if sample["score"] is not None]
    right = [sample["score"] for sample in trace if sample["answer"] == "22"]
    wrong = [sample["score"] for sample in trace if sample["answer"] != "22"]
    assert min(right) > max(wrong)
    assert reply.json()["choices"][0]["message"]["content"] == "22"
