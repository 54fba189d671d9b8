"""Keys and what they may spend, over the whole app."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.app import create_app
from gateway.cli import main
from gateway.config import ConfigError, Settings, load_settings
from gateway.http.auth import digest, new_key
from gateway.upstreams.base import ModelCard
from tests.fakes import ScriptedUpstream, says, thinks
from tests.serving import serving
from tests.stub_engine import Json, stub_engine

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
ASK: dict[str, Any] = {"model": "tiny", "messages": QUESTION}
PATHS = [CHAT, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/completions", "/v1/models"]
ALICE, BOB = "tg-alice's own", "tg-bob's own"
CARDS = {
    name: ModelCard(name, context=32768, raw={"id": name}) for name in ("tiny", "tiny-large", "secret-7b")
}


def bearer(key: str) -> dict[str, str]:
    """A key as OpenAI's clients send it."""
    return {"Authorization": f"Bearer {key}"}


def settings_with(alice: dict[str, Any] | None = None, **more: Any) -> Settings:
    """Settings with two keys, of which Bob's may do anything."""
    keys = {
        "alice": {"secret_sha256": digest(ALICE), **(alice or {})},
        "bob": {"secret_sha256": digest(BOB)},
    }
    return Settings.model_validate({"keys": keys, **more})


@asynccontextmanager
async def client_of(
    settings: Settings, upstream: ScriptedUpstream | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with these settings."""
    app = create_app(settings, upstream or ScriptedUpstream(thinks(8)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def budget_of(settings: Settings, body: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """The budget in the report of Alice's request."""
    async with client_of(settings) as client:
        reply = await client.post(CHAT, json={**ASK, **(body or {})}, headers={**bearer(ALICE), **headers})
    assert reply.status_code == 200, reply.text
    scaling = reply.json()["scaling"]
    return {**scaling["budget"], "overridden": scaling["overridden"], "notes": scaling["notes"]}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"x-api-key": "wrong"}, {"Authorization": f"Basic {ALICE}"}]
)
async def test_without_a_known_key_nothing_is_answered(path: str, headers: dict[str, str]) -> None:
    """A 401 in the shape of the path's clients, before the upstream or the body is looked at."""
    upstream = ScriptedUpstream(says("7"))
    async with client_of(settings_with(), upstream) as client:
        reply = await client.request("GET" if path == "/v1/models" else "POST", path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"]
    told = reply.json()
    assert told["error"]["code"] == "invalid_api_key"
    assert told["error"]["param"] == "Authorization"
    assert "Bearer" in told["error"]["message"]
    assert "wrong" not in reply.text
    if path.startswith("/v1/messages"):
        assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")
    assert upstream.plans == []


@pytest.mark.parametrize(
    "headers", [bearer(ALICE), {"authorization": f"bearer  {BOB}"}, {"x-api-key": ALICE}]
)
async def test_a_known_key_lets_in(headers: dict[str, str]) -> None:
    """Anybody's, in OpenAI's way or Anthropic's, on every path."""
    async with client_of(settings_with()) as client:
        assert (await client.post(CHAT, json=ASK, headers=headers)).status_code == 200
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_a_known_key_beside_an_unknown_one_is_enough() -> None:
    """As where a proxy in front has an authorization of its own."""
    async with client_of(settings_with()) as client:
        reply = await client.post(CHAT, json=ASK, headers={**bearer("a proxy's"), "x-api-key": ALICE})
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json"])
async def test_what_operators_watch_stays_open(path: str) -> None:
    """Probes and scrapers have no key."""
    async with client_of(settings_with()) as client:
        assert (await client.get(path)).status_code == 200


async def test_without_keys_everybody_may_ask() -> None:
    """Whatever a client sends as its key."""
    async with client_of(Settings()) as client:
        assert (await client.post(CHAT, json=ASK, headers=bearer("anything"))).status_code == 200


async def test_the_official_clients_send_keys_so() -> None:
    """The gateway's key is what each takes as `api_key`; a wrong one is its own authentication error."""
    fields: Any = {"model": "tiny", "max_tokens": 99, "messages": QUESTION}
    async with (
        serving(create_app(settings_with(), ScriptedUpstream(thinks(8)))) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=ALICE) as one,
        anthropic.AsyncAnthropic(base_url=url, api_key=ALICE) as two,
    ):
        assert (await one.models.list()).data[0].id == "tiny"
        assert (await two.messages.create(**fields)).stop_reason == "end_turn"
        with pytest.raises(openai.AuthenticationError):
            await one.with_options(api_key="wrong").models.list()
        with pytest.raises(anthropic.AuthenticationError):
            await two.with_options(api_key="wrong").messages.create(**fields)


async def test_the_upstream_never_sees_a_clients_key() -> None:
    """It gets the gateway's own, or none."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", Json({"choices": [{"message": {"content": "7"}}]}))
        server.answers("/v1/completions", Json({"choices": [{"text": "7"}]}))
        for upstream_key in ("sk-upstream", None):
            settings = settings_with(upstream=server.base_url, upstream_key=upstream_key)
            app = create_app(settings)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
            ):
                headers = {**bearer(ALICE), "x-api-key": BOB}
                for path in (CHAT, "/v1/completions"):
                    assert (await client.post(path, json=ASK, headers=headers)).status_code == 200
            seen = [sent for _, _, sent in server.requests]
            server.requests.clear()
            assert {sent.get("authorization") for sent in seen} == {upstream_key and f"Bearer {upstream_key}"}
            assert not any("x-api-key" in sent or ALICE in str(sent) or BOB in str(sent) for sent in seen)


@pytest.mark.parametrize(
    ("asked", "headers", "by", "limit"),
    [
        ({}, {}, "key", 300),
        ({"model": "tiny:high"}, {}, "model", 900),
        ({"reasoning_effort": "low"}, {}, "body", 900),
        ({"reasoning_effort": "low"}, {"X-Reasoning-Budget": "200"}, "header", 200),
    ],
)
async def test_a_keys_default_stands_where_a_client_says_nothing(
    asked: dict[str, Any], headers: dict[str, str], by: str, limit: int
) -> None:
    """A request's word beats it; it beats the route's, the model's and everybody's; no cap is passed."""
    settings = settings_with(
        {"default_budget": "300", "budget_cap": 900},
        routes={CHAT: {"default_budget": "400", "budget_cap": 5000}},
        models={"t*": {"default_budget": "500"}},
        default_budget="600",
    )
    told = await budget_of(settings, asked, **headers)
    assert (told["by"], told["limit"]) == (by, limit)


async def test_a_routes_default_beats_the_models() -> None:
    """For those whose key has none; on that route alone."""
    settings = settings_with(routes={"/v1/messages": {"default_budget": "400"}}, default_budget="600")
    assert (await budget_of(settings))["by"] == "default"
    async with client_of(settings) as client:
        fields = {"max_tokens": 9000, "scaling": {"samples": 1}}
        reply = await client.post("/v1/messages", json={**ASK, **fields}, headers=bearer(ALICE))
    budget = reply.json()["scaling"]["budget"]
    assert (budget["by"], budget["limit"]) == ("route", 400)


@pytest.mark.parametrize("asked", ["5000", "high", "max"])
@pytest.mark.parametrize(
    ("alice", "everybody"),
    [
        ({"budget_cap": 70}, {}),
        ({"budget_cap": 70}, {"budget_cap": 500}),
        ({"budget_cap": 500}, {"budget_cap": 70}),
        ({"budget_cap": 500}, {"routes": {CHAT: {"budget_cap": 70}}}),
    ],
)
async def test_the_least_cap_holds(asked: str, alice: dict[str, Any], everybody: dict[str, Any]) -> None:
    """Whosever it is; the report says that more was asked for than is allowed."""
    told = await budget_of(settings_with(alice, **everybody), **{"X-Reasoning-Budget": asked})
    assert told["limit"] == 70
    assert [note for note in told["notes"] if "70 thinking tokens" in note and "allowed" in note]


async def test_a_cap_holds_against_a_templates_own_switch() -> None:
    """A request's own word that keeps thinking on where it is off by the budget keeps it on up to the cap."""
    upstream = ScriptedUpstream(thinks(200))
    async with client_of(settings_with({"budget_cap": 70}, family="qwen3"), upstream) as client:
        body = {**ASK, "reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}
        reply = await client.post(CHAT, json=body, headers=bearer(ALICE))
    budget = reply.json()["scaling"]["budget"]
    assert (budget["enforced"], budget["used"]) == ("forced", 70)


async def test_a_cap_holds_where_nothing_was_asked() -> None:
    """And isn't worth a note there."""
    told = await budget_of(settings_with({"budget_cap": 70}))
    assert (told["limit"], told["notes"]) == (70, [])


@pytest.mark.parametrize(
    ("headers", "fields", "param"),
    [({"X-Samples": "3"}, {}, "X-Samples"), ({}, {"model": "tiny@3"}, "model"), ({}, {"n": 3}, "n")],
)
async def test_a_keys_samples_are_capped(headers: dict[str, str], fields: dict[str, Any], param: str) -> None:
    """By a 400 that says how many there may be; others' keys are free."""
    async with client_of(settings_with({"max_samples": 2}), ScriptedUpstream(says("7"))) as client:
        body = {**ASK, **fields}
        refused = await client.post(CHAT, json=body, headers={**bearer(ALICE), **headers})
        answered = await client.post(CHAT, json=body, headers={**bearer(BOB), **headers})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert "allowed: 1 to 2" in refused.json()["error"]["message"]
    assert answered.status_code == 200


@pytest.mark.parametrize("headers", [{"X-Samples": "auto"}, {"X-Reasoning-Budget": "crowd"}])
async def test_a_level_brings_no_more_samples_than_the_key_may_draw(headers: dict[str, str]) -> None:
    """Neither a level's own number nor what difficulty finds is over the cap."""
    settings = settings_with(
        {"max_samples": 2}, levels={"crowd": {"tokens": 50, "samples": 8, "stop": "none"}}
    )
    async with client_of(settings, ScriptedUpstream(says("1"), says("2"), says("3"))) as client:
        reply = await client.post(CHAT, json=ASK, headers={**bearer(ALICE), **headers})
    assert reply.json()["scaling"]["samples"]["launched"] == 2


async def test_other_models_than_a_keys_own_do_not_exist_for_it() -> None:
    """Not in the list, not by name or suffix, not as a completion, and not in the error's list."""
    settings, upstream = settings_with({"models": ["TINY*"]}), ScriptedUpstream(says("7"), models=CARDS)
    async with client_of(settings, upstream) as client:
        client.headers.update(bearer(ALICE))
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert listed == ["tiny", "tiny-large"]
        assert (await client.get("/v1/models/secret-7b")).status_code == 404
        for path in (CHAT, "/v1/completions"):
            for name in ("secret-7b", "secret-7b:low", "", "unknown"):
                reply = await client.post(path, json={**ASK, "model": name})
                assert reply.status_code == 404
                assert "available: tiny, tiny-large." in reply.json()["error"]["message"]
        assert (await client.post(CHAT, json={**ASK, "model": "tiny-large"})).status_code == 200
        everything = await client.get("/v1/models", headers=bearer(BOB))
        assert len(everything.json()["data"]) == 3


async def test_a_keys_models_hold_where_the_upstream_lists_none() -> None:
    """There any name goes on as it is, if it fits."""
    settings, upstream = settings_with({"models": ["tiny*"]}), ScriptedUpstream(says("7"), models={})
    async with client_of(settings, upstream) as client:
        statuses = [
            (await client.post(CHAT, json={**ASK, "model": name}, headers=bearer(ALICE))).status_code
            for name in ("tiny-9", "secret-7b", "")
        ]
    assert statuses == [200, 404, 404]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[keys.alice]\nsecret = "a"', "keys.alice.secret_sha256"),
        ('[keys.alice]\nsecret_sha256 = "tg-not-a-hash"', "keys.alice.secret_sha256"),
        ('[keys.a]\nsecret_sha256 = "{0}"\n[keys.b]\nsecret_sha256 = "{0}"', "a and b have the same"),
        ('[keys.a]\nsecret_sha256 = "{0}"\ndefault_budget = "hgih"', "keys.a.default_budget: unknown value"),
        ('[routes."/v1/chat"]\nbudget_cap = 1', "routes./v1/chat"),
        ('[routes."/v1/messages"]\ndefault_budget = "hgih"', "routes./v1/messages.default_budget"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path: Path, text: str, told: str) -> None:
    """At the start, without showing what may be a key."""
    path = tmp_path / "thinkgate.toml"
    path.write_text(text.replace("{0}", digest(ALICE)), encoding="utf-8")
    with pytest.raises(ConfigError, match=told) as error:
        create_app(load_settings(path, {}), ScriptedUpstream(says("7")))
    assert "tg-not-a-hash" not in str(error.value)


@pytest.mark.parametrize("name", ["alice", "Alice & Bob", 'a"b'])
async def test_the_command_makes_a_key_and_its_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints is pasted into the settings, and the key in its comment lets in."""
    assert main(["keys", name]) == 0
    printed = capsys.readouterr().out
    settings = Settings.model_validate(tomllib.loads(printed))
    [key] = [word for word in printed.split() if word.startswith("tg-")]
    assert list(settings.keys) == [name]
    assert key not in repr(settings)
    async with client_of(settings) as client:
        assert (await client.post(CHAT, json=ASK, headers=bearer(key))).status_code == 200


def test_no_key_is_made_twice() -> None:
    """Each is new, and long enough not to be guessed."""
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert min(map(len, made)) > 40
