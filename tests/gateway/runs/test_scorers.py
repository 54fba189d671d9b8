"""Scorers from the settings."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.app import create_app
from gateway.config import ConfigError, Settings, load_settings
from gateway.runs.scorers import Scorers
from gateway.scorer_settings import JudgeTable
from scorers.combined import CombinedScorer
from scorers.confidence import ConfidenceScorer
from scorers.types import Sample, ScorerError
from tests.fakes import ScriptedUpstream, says
from tests.scorers.models import nobody

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SETTINGS = """
[scorers.sure]
kind = "confidence"
measure = "tail"

[scorers.rm]
kind = "trained"
url = "http://{where}"
key_env = "RM_KEY"
template = "{{answer}}"
unproven = true

[scorers.both]
kind = "combined"
weights = {{ sure = 1.0, rm = 3.0 }}
"""


def written(tmp_path: Path, text: str) -> Path:
    """A settings file with this text."""
    path = tmp_path / "thinkgate.toml"
    path.write_text(text, encoding="utf-8")
    return path


async def listening(path: str, handler: Handler) -> tuple[web.AppRunner, str]:
    """A server that answers there, and its host and port."""
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return runner, f"{host}:{port}"


def test_tables_become_scorers(tmp_path: Path) -> None:
    """Under the names that clients say, beside the ones that need no settings."""
    settings = load_settings(written(tmp_path, SETTINGS.format(where="rm:8000")), {})
    scorers = Scorers(settings.scorers).scorers
    assert list(scorers) == ["confidence", "agreement", "judge", "sure", "rm", "both"]
    assert scorers["sure"] == ConfidenceScorer("tail")
    assert isinstance(scorers["both"], CombinedScorer)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[scorers.x]\nkind = "magic"', "scorers.x"),
        ('[scorers.x]\nkind = "trained"', "either a url or a directory"),
        ('[scorers.x]\nkind = "trained"\nurl = "http://x"\ntemplate = "x"', "must contain {answer}"),
        ('[scorers.none]\nkind = "agreement"', "can't have the name"),
        (
            '[scorers.x]\nkind = "combined"\nweights = { y = 1.0 }',
            "unknown y; allowed: agreement, confidence",
        ),
        ('[scorers.x]\nkind = "judge"\nrubrik = ""', "scorers.x.judge.rubrik: unknown setting"),
        ('[scorers.x]\nkind = "judge"\nurl = "http://x/v1"', "needs model, the model's name"),
        ('[scorers.x]\nkind = "judge"\nkey = "sk"', "key and key_env need a url"),
        ('free_form = "best-looking"', "unknown value 'best-looking'; allowed: mbr, first, confidence"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, told: str) -> None:
    """Nothing starts with it."""
    with pytest.raises(ConfigError, match=told):
        load_settings(written(tmp_path, text), {})


async def test_clients_may_name_what_there_is(tmp_path: Path) -> None:
    """Any other name is a 400 that lists them."""
    settings = load_settings(written(tmp_path, SETTINGS.format(where="rm")), {})
    app = create_app(settings, ScriptedUpstream(says("\\boxed{7}")))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    ask = {"messages": [{"role": "user", "content": "?"}]}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        refused = await client.post("/v1/chat/completions", json=ask, headers={"X-Scorer": "fair"})
        known = await client.post("/v1/chat/completions", json=ask, headers={"X-Scorer": "sure"})
    assert refused.status_code == 400
    assert "none, confidence, agreement, judge, sure, rm, both" in refused.json()["error"]["message"]
    assert known.status_code == 200


async def test_a_served_classifier_is_asked_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its key; what it answers becomes scores, and an error of its is a failure, not a score."""
    asked: list[tuple[Any, str | None]] = []

    async def classify(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append((body, request.headers.get("Authorization")))
        if "down" in body["input"]:
            return web.json_response({"error": "out of memory"}, status=500)
        data = [{"index": i, "probs": [len(text) / 10]} for i, text in enumerate(body["input"])]
        return web.json_response({"data": data, "usage": {"total_tokens": 9}})

    runner, where = await listening("/classify", classify)
    monkeypatch.setenv("RM_KEY", "sk-rm")
    scoring = Scorers(load_settings(written(tmp_path, SETTINGS.format(where=where)), {}).scorers)
    try:
        model = nobody()
        assert await scoring.scorers["rm"].score([], [Sample(0, "seven")], model) == [0.5]
        assert model.tokens == 9
        assert asked[0][1] == "Bearer sk-rm"
        with pytest.raises(ScorerError, match="answered 500"):
            await scoring.scorers["rm"].score([], [Sample(0, "down")], model)
    finally:
        await runner.cleanup()
    with pytest.raises(ScorerError, match="can't be reached"):
        await scoring.scorers["rm"].score([], [Sample(0, "seven")], nobody())
    await scoring.close()


def test_a_key_is_never_shown() -> None:
    """Settings may be printed or logged without giving it away."""
    table = {"kind": "trained", "url": "http://x", "key": "sk-secret", "unproven": True}
    settings = Settings.model_validate({"scorers": {"rm": table}})
    assert "sk-secret" not in repr(settings) + settings.model_dump_json()
    assert "sk-secret" not in repr(Scorers(settings.scorers).scorers)


JUDGE = """
[scorers.checker]
kind = "judge"
method = "check"
url = "http://{where}/v1"
key_env = "JUDGE_KEY"
budget = "low"
model = "judge"
rounds = 1
unproven = true
"""


async def test_a_judge_may_have_a_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked there, by its name and with its key; its tokens count, what can't be read is a failure."""
    monkeypatch.setenv("JUDGE_KEY", "sk-judge")
    asked: list[tuple[Any, str | None]] = []

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append((body, request.headers.get("Authorization")))
        question = body["messages"][0]["content"]
        if "Is it 9?" in question:
            return web.json_response({"choices": []})
        if "Is it 10?" in question:
            return web.json_response({"choices": [{"message": {"content": "no"}}], "usage": "much"})
        said = "yes" if "Is it 7?" in question else "no"
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"total_tokens": 5}})

    runner, where = await listening("/v1/chat/completions", complete)
    scoring = Scorers(load_settings(written(tmp_path, JUDGE.format(where=where)), {}).scorers)
    judge = scoring.scorers["checker"]
    question = [{"role": "user", "content": "What is 3 + 4?"}]
    try:
        model = nobody()
        found = await judge.score(question, [Sample(0, "7"), Sample(1, "8"), Sample(2, "7")], model)
        assert found == [0.75, 0.25, 0.75]
        assert model.tokens == 10
        body, key = asked[0]
        assert (body["model"], body["temperature"], key) == ("judge", 0, "Bearer sk-judge")
        assert body["reasoning_effort"] == "low"
        assert "sk-judge" not in repr(judge)
        for answer in ("9", "10"):
            with pytest.raises(ScorerError, match="is not a chat completion"):
                await judge.score(question, [Sample(0, answer)], nobody())
    finally:
        await runner.cleanup()
        await scoring.close()


def test_a_judges_budget_may_go_by_its_old_name(tmp_path: Path) -> None:
    """`effort` is taken with a warning; both names at once are an error."""
    path = written(tmp_path, '[scorers.x]\nkind = "judge"\neffort = "low"')
    with pytest.warns(FutureWarning, match="effort is budget now"):
        table = load_settings(path, {}).scorers["x"]
    assert isinstance(table, JudgeTable)
    assert table.budget == "low"
    path = written(tmp_path, '[scorers.x]\nkind = "judge"\neffort = "low"\nbudget = "low"')
    with pytest.raises(ConfigError, match="effort is the old name of budget"):
        load_settings(path, {})


async def test_a_connection_that_its_server_has_closed_is_no_failure(tmp_path: Path) -> None:
    """The next question goes out on another one, and each question once."""
    asked: list[Any] = []

    async def complete(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        response = web.json_response({"choices": [{"message": {"content": "yes"}}]})
        await response.prepare(request)
        await response.write_eof()
        assert request.transport is not None
        request.transport.close()
        return response

    runner, where = await listening("/v1/chat/completions", complete)
    scoring = Scorers(load_settings(written(tmp_path, JUDGE.format(where=where)), {}).scorers)
    try:
        for _ in range(2):
            assert await scoring.scorers["checker"].score([], [Sample(0, "7")], nobody()) == [0.75]
        assert len(asked) == 2
    finally:
        await runner.cleanup()
        await scoring.close()


async def test_how_a_judge_thinks_at_its_own_server_is_that_servers_affair(tmp_path: Path) -> None:
    """Unless the table names an effort."""
    asked: list[Any] = []

    async def complete(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"choices": [{"message": {"content": "yes"}}]})

    runner, where = await listening("/v1/chat/completions", complete)
    text = JUDGE.format(where=where).replace('budget = "low"\n', "")
    scoring = Scorers(load_settings(written(tmp_path, text), {}).scorers)
    try:
        asking = [{"role": "user", "content": "?"}]
        assert await scoring.scorers["checker"].score(asking, [Sample(0, "7")], nobody()) == [0.75]
        assert "reasoning_effort" not in asked[0]
    finally:
        await runner.cleanup()
        await scoring.close()
