"""Keys, and what they may spend, in the whole app."""

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
from gateway.http.auth import key_digest, new_key
from gateway.upstreams.base import ModelCard
from tests.fakes import ScriptedUpstream, says, thinks
from tests.serving import serving
from tests.stub_engine import Json, stub_engine

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
ASK: dict[str, Any] = {"model": "tiny", "messages": QUESTION}
END = {"finish_reason": "stop"}
PATHS = [CHAT, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/completions", "/v1/models"]
ALICE, BOB = "tg-alice's own", "tg-bob's own"
CARDS = {
    name: ModelCard(name, context=32768, raw={"id": name}) for name in ("tiny", "tiny-large", "secret-7b")
}


def bearer(key: str) -> dict[str, str]:
    """Return the header in which OpenAI's clients send a key."""
    return {"Authorization": f"Bearer {key}"}


def settings_with(alice: dict[str, Any] | None = None, **more: Any) -> Settings:
    """Return settings with two keys; Bob's has no limits."""
    keys = {
        "alice": {"secret_sha256": key_digest(ALICE), **(alice or {})},
        "bob": {"secret_sha256": key_digest(BOB)},
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
    """Return the budget in the report of Alice's request."""
    async with client_of(settings) as client:
        reply = await client.post(CHAT, json={**ASK, **(body or {})}, headers={**bearer(ALICE), **headers})
    assert reply.status_code == 200, reply.text
    scaling = reply.json()["scaling"]
    return {**scaling["budget"], "overridden": scaling["overridden"], "notes": scaling["notes"]}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"x-api-key": "wrong"}, {"Authorization": f"Basic {ALICE}"}]
)
async def test_a_request_without_a_known_key_is_refused(path: str, headers: dict[str, str]) -> None:
    """It gets a 401 in the shape of the path's clients; the upstream sees nothing."""
    upstream = ScriptedUpstream(says("7"))
    async with client_of(settings_with(), upstream) as client:
        reply = await client.request("GET" if path == "/v1/models" else "POST", path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"]
    body = reply.json()
    assert body["error"]["code"] == "invalid_api_key"
    assert body["error"]["param"] == "Authorization"
    assert "Bearer" in body["error"]["message"]
    assert "wrong" not in reply.text
    if path.startswith("/v1/messages"):
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
    assert upstream.plans == []


@pytest.mark.parametrize(
    "headers", [bearer(ALICE), {"authorization": f"bearer  {BOB}"}, {"x-api-key": ALICE}]
)
async def test_a_known_key_lets_in(headers: dict[str, str]) -> None:
    """Every known key works, sent in OpenAI's way or in Anthropic's."""
    async with client_of(settings_with()) as client:
        assert (await client.post(CHAT, json=ASK, headers=headers)).status_code == 200
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_a_known_key_beside_an_unknown_one_is_enough() -> None:
    """A proxy in front may send an authorization of its own."""
    async with client_of(settings_with()) as client:
        reply = await client.post(CHAT, json=ASK, headers={**bearer("a proxy's"), "x-api-key": ALICE})
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json"])
async def test_operators_need_no_key(path: str) -> None:
    """Probes and scrapers get health, metrics and the OpenAPI document without a key."""
    async with client_of(settings_with()) as client:
        assert (await client.get(path)).status_code == 200


async def test_a_gateway_without_keys_answers_everybody() -> None:
    """It ignores the key that a client sends."""
    async with client_of(Settings()) as client:
        assert (await client.post(CHAT, json=ASK, headers=bearer("anything"))).status_code == 200


async def test_the_official_clients_can_send_keys() -> None:
    """Each takes the gateway's key as `api_key`; a wrong key raises its own authentication error."""
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
    """The upstream gets the gateway's own key or none."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", Json({"choices": [{"message": {"content": "7"}, **END}]}))
        server.answers("/v1/completions", Json({"choices": [{"text": "7", **END}]}))
        for upstream_key in ("sk-upstream", None):
            settings = settings_with(upstream=server.base_url, upstream_key=upstream_key)
            app = create_app(settings)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
            ):
                both_keys = {**bearer(ALICE), "x-api-key": BOB}
                for path in (CHAT, "/v1/completions"):
                    assert (await client.post(path, json=ASK, headers=both_keys)).status_code == 200
            sent = [headers for _, _, headers in server.requests]
            server.requests.clear()
            assert {headers.get("authorization") for headers in sent} == {
                upstream_key and f"Bearer {upstream_key}"
            }
            assert not any("x-api-key" in headers for headers in sent)
            assert ALICE not in str(sent)
            assert BOB not in str(sent)


@pytest.mark.parametrize(
    ("fields", "headers", "by", "limit"),
    [
        ({}, {}, "key", 300),
        ({"model": "tiny:high"}, {}, "model", 900),
        ({"reasoning_effort": "low"}, {}, "body", 900),
        ({"reasoning_effort": "low"}, {"X-Reasoning-Budget": "200"}, "header", 200),
    ],
)
async def test_a_keys_default_applies_to_a_request_without_a_budget(
    fields: dict[str, Any], headers: dict[str, str], by: str, limit: int
) -> None:
    """A request's own budget beats it; it beats the route's, the model's and the general default."""
    settings = settings_with(
        {"default_budget": "300", "budget_cap": 900},
        routes={CHAT: {"default_budget": "400", "budget_cap": 5000}},
        models={"t*": {"default_budget": "500"}},
        default_budget="600",
    )
    budget = await budget_of(settings, fields, **headers)
    assert (budget["by"], budget["limit"]) == (by, limit)


async def test_a_routes_default_beats_the_models() -> None:
    """It applies to keys without a default, on that route alone."""
    settings = settings_with(routes={"/v1/messages": {"default_budget": "400"}}, default_budget="600")
    assert (await budget_of(settings))["by"] == "default"
    async with client_of(settings) as client:
        fields = {"max_tokens": 9000, "scaling": {"samples": 1}}
        reply = await client.post("/v1/messages", json={**ASK, **fields}, headers=bearer(ALICE))
    budget = reply.json()["scaling"]["budget"]
    assert (budget["by"], budget["limit"]) == ("route", 400)


@pytest.mark.parametrize("wanted", ["5000", "high", "max"])
@pytest.mark.parametrize(
    ("alice", "everybody"),
    [
        ({"budget_cap": 70}, {}),
        ({"budget_cap": 70}, {"budget_cap": 500}),
        ({"budget_cap": 500}, {"budget_cap": 70}),
        ({"budget_cap": 500}, {"routes": {CHAT: {"budget_cap": 70}}}),
    ],
)
async def test_the_lowest_cap_holds(wanted: str, alice: dict[str, Any], everybody: dict[str, Any]) -> None:
    """It may belong to anybody; the report notes that the request wanted more."""
    budget = await budget_of(settings_with(alice, **everybody), **{"X-Reasoning-Budget": wanted})
    assert budget["limit"] == 70
    assert [note for note in budget["notes"] if "70 thinking tokens" in note and "allowed" in note]


async def test_a_cap_holds_against_a_templates_own_switch() -> None:
    """If a template switch turns thinking on against a budget of `off`, the cap still holds."""
    upstream = ScriptedUpstream(thinks(200))
    async with client_of(settings_with({"budget_cap": 70}, family="qwen3"), upstream) as client:
        body = {**ASK, "reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}
        reply = await client.post(CHAT, json=body, headers=bearer(ALICE))
    budget = reply.json()["scaling"]["budget"]
    assert (budget["enforced"], budget["used"]) == ("forced", 70)


async def test_a_cap_holds_without_a_budget() -> None:
    """A request that names no budget is capped without a note."""
    budget = await budget_of(settings_with({"budget_cap": 70}))
    assert (budget["limit"], budget["notes"]) == (70, [])


@pytest.mark.parametrize(
    ("headers", "fields", "param"),
    [({"X-Samples": "3"}, {}, "X-Samples"), ({}, {"model": "tiny@3"}, "model"), ({}, {"n": 3}, "n")],
)
async def test_a_keys_samples_are_capped(headers: dict[str, str], fields: dict[str, Any], param: str) -> None:
    """A request for more is a 400 that says how many are allowed; other keys are free."""
    async with client_of(settings_with({"max_samples": 2}), ScriptedUpstream(says("7"))) as client:
        body = {**ASK, **fields}
        refusal = await client.post(CHAT, json=body, headers={**bearer(ALICE), **headers})
        answer = await client.post(CHAT, json=body, headers={**bearer(BOB), **headers})
    assert refusal.status_code == 400
    assert refusal.json()["error"]["param"] == param
    assert "allowed: 1 to 2" in refusal.json()["error"]["message"]
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", [{"X-Samples": "auto"}, {"X-Reasoning-Budget": "crowd"}])
async def test_a_level_brings_no_more_samples_than_the_key_may_draw(headers: dict[str, str]) -> None:
    """The cap holds for a level's own samples and for `auto`."""
    settings = settings_with(
        {"max_samples": 2}, levels={"crowd": {"tokens": 50, "samples": 8, "stop": "none"}}
    )
    async with client_of(settings, ScriptedUpstream(says("1"), says("2"), says("3"))) as client:
        reply = await client.post(CHAT, json=ASK, headers={**bearer(ALICE), **headers})
    assert reply.json()["scaling"]["samples"]["launched"] == 2


async def test_a_key_sees_only_its_own_models() -> None:
    """Other models appear in no list and no error, and can't be used by name or suffix."""
    settings, upstream = settings_with({"models": ["TINY*"]}), ScriptedUpstream(says("7"), models=CARDS)
    async with client_of(settings, upstream) as client:
        client.headers.update(bearer(ALICE))
        names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert names == ["tiny", "tiny-large"]
        assert (await client.get("/v1/models/secret-7b")).status_code == 404
        for path in (CHAT, "/v1/completions"):
            for name in ("secret-7b", "secret-7b:low", "", "unknown"):
                reply = await client.post(path, json={**ASK, "model": name})
                assert reply.status_code == 404
                assert "available: tiny, tiny-large." in reply.json()["error"]["message"]
        assert (await client.post(CHAT, json={**ASK, "model": "tiny-large"})).status_code == 200
        everything = await client.get("/v1/models", headers=bearer(BOB))
        assert len(everything.json()["data"]) == 3


async def test_a_keys_models_hold_if_the_upstream_lists_none() -> None:
    """A name that matches the key's patterns goes upstream as it is; others are a 404."""
    settings, upstream = settings_with({"models": ["tiny*"]}), ScriptedUpstream(says("7"), models={})
    async with client_of(settings, upstream) as client:
        statuses = [
            (await client.post(CHAT, json={**ASK, "model": name}, headers=bearer(ALICE))).status_code
            for name in ("tiny-9", "secret-7b", "")
        ]
    assert statuses == [200, 404, 404]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[keys.alice]\nsecret = "a"', "keys.alice.secret_sha256"),
        ('[keys.alice]\nsecret_sha256 = "tg-not-a-hash"', "keys.alice.secret_sha256"),
        ('[keys.a]\nsecret_sha256 = "{0}"\n[keys.b]\nsecret_sha256 = "{0}"', "a and b have the same"),
        ('[keys.a]\nsecret_sha256 = "{0}"\ndefault_budget = "hgih"', "keys.a.default_budget: unknown value"),
        ('[routes."/v1/chat"]\nbudget_cap = 1', "routes./v1/chat"),
        ('[routes."/v1/messages"]\ndefault_budget = "hgih"', "routes./v1/messages.default_budget"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The start fails with the field's name, and never shows a value that may be a key."""
    path = tmp_path / "thinkgate.toml"
    path.write_text(text.replace("{0}", key_digest(ALICE)), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        create_app(load_settings(path, {}), ScriptedUpstream(says("7")))
    assert "tg-not-a-hash" not in str(error.value)


@pytest.mark.parametrize("name", ["alice", "Alice & Bob", 'a"b'])
async def test_the_command_makes_a_key_and_its_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its output is valid settings, and the key in its comment is admitted."""
    assert main(["keys", name]) == 0
    printed = capsys.readouterr().out
    settings = Settings.model_validate(tomllib.loads(printed))
    [key] = [word for word in printed.split() if word.startswith("tg-")]
    assert list(settings.keys) == [name]
    assert key not in repr(settings)
    async with client_of(settings) as client:
        assert (await client.post(CHAT, json=ASK, headers=bearer(key))).status_code == 200


def test_every_key_is_new() -> None:
    """Keys differ, and are too long to guess."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) > 40
