"""Aliases share requests among models, and their file can be replaced at any time."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.aliases import Aliases, AliasesError, Target, choose_target, conversation_key, parse_aliases
from gateway.app import create_app
from gateway.cli import main
from gateway.config import Settings
from gateway.upstreams.base import ModelCard
from tests.fakes import ScriptedUpstream, says
from tests.serving import events_of, serving

PATH = "/v1/chat/completions"
SERVED = {name: ModelCard(name, context=4096, raw={"id": name, "object": "model"}) for name in ("old", "new")}
ASK: dict[str, Any] = {"model": "best", "messages": [{"role": "user", "content": "3 + 4?"}]}


def write(path: Path, aliases: dict[str, dict[str, float]], text: str | None = None) -> Path:
    """Replace the file atomically by these shares, or by this text."""
    table = {name: [{"model": m, "share": s} for m, s in shares.items()] for name, shares in aliases.items()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(table) if text is None else text)
    os.replace(part, path)
    return path


@asynccontextmanager
async def gateway(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running gateway."""
    app = create_app(Settings(**settings), upstream)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def engine_with(*scripts: Any) -> ScriptedUpstream:
    """Return an engine with two models."""
    return ScriptedUpstream(*(scripts or [says("The answer is 7.")]), models=SERVED, strict=True)


async def eventually(
    ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], seconds: float = 20
) -> Any:
    """Ask until the condition holds for an answer, and return it; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not holds(answer := await ask()):
        assert time.monotonic() < deadline, f"it stayed {answer}"
        await asyncio.sleep(0.02)
    return answer


async def test_an_alias_is_a_model_like_any_other(tmp_path: Path) -> None:
    """It is listed and takes a suffix; in the reply, `model` is the model that answered."""
    path = write(tmp_path / "aliases.json", {"best": {"new": 1}})
    upstream = engine_with()
    async with gateway(upstream, aliases=path) as client:
        models = (await client.get("/v1/models")).json()["data"]
        reply = (await client.post(PATH, json={**ASK, "model": "best:low@3"})).json()
        single = (await client.get("/v1/models/best")).json()
    assert [model["id"] for model in models] == ["old", "new", "best"]
    assert single["targets"] == [{"model": "new", "share": 1.0}]
    assert {body["model"] for body in upstream.bodies} == {"new"}
    assert reply["scaling"]["alias"] == {"name": "best", "target": "new"}
    assert reply["scaling"]["samples"]["asked"] == 3
    assert reply["scaling"]["budget"]["asked"] == "low"


async def test_a_target_may_have_a_suffix(tmp_path: Path) -> None:
    """A level and samples in the target's name are the alias's defaults, which the client can override."""
    path = write(tmp_path / "aliases.json", {"best": {"new:low@3": 1}})
    async with gateway(engine_with(), aliases=path) as client:
        plain = (await client.post(PATH, json=ASK)).json()["scaling"]
        suffixed = (await client.post(PATH, json={**ASK, "model": "best:high@2"})).json()["scaling"]
    assert (plain["budget"]["asked"], plain["samples"]["asked"]) == ("low", 3)
    assert (suffixed["budget"]["asked"], suffixed["samples"]["asked"]) == ("high", 2)


async def test_an_alias_hides_a_model_of_its_name(tmp_path: Path) -> None:
    """An operator can replace a model under the name that clients use; other models stay as they are."""
    path = write(tmp_path / "aliases.json", {"old": {"new": 1}})
    upstream = engine_with()
    async with gateway(upstream, aliases=path) as client:
        plain = (await client.post(PATH, json={**ASK, "model": "new"})).json()
        await client.post(PATH, json={**ASK, "model": "old"})
        unknown = await client.post(PATH, json={**ASK, "model": "other"})
        models = (await client.get("/v1/models")).json()["data"]
    assert "alias" not in plain["scaling"]
    assert [body["model"] for body in upstream.bodies] == ["new", "new"]
    assert unknown.status_code == 404
    assert len(models) == 2


async def test_a_new_file_takes_effect_and_drops_no_stream(tmp_path: Path) -> None:
    """A running stream keeps its model, while new requests reach the other one."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    gate = asyncio.Event()
    upstream = engine_with(says("The answer ", gate, "is 7."), says("8"))
    app = create_app(Settings(aliases=path), upstream)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", PATH, json={**ASK, "stream": True}) as stream:
            write(path, {"best": {"new": 1}})

            async def target() -> Any:
                return (await client.get("/v1/models/best")).json()["targets"][0]["model"]

            await eventually(target, lambda model: model == "new")
            other = (await client.post(PATH, json=ASK)).json()
            gate.set()
            text = (await stream.aread()).decode()
        metrics = (await client.get("/metrics")).text
    events = events_of(text)
    assert (
        "".join(c["delta"].get("content") or "" for e in events for c in e["choices"]) == "The answer is 7."
    )
    assert [event["scaling"]["alias"]["target"] for event in events if "scaling" in event] == ["old"]
    assert other["scaling"]["alias"]["target"] == "new"
    for target in ("old", "new"):
        assert (
            f'thinkgate_target_requests_total{{alias="best",status="200",target="{target}"}} 1.0' in metrics
        )
        assert f'thinkgate_target_seconds_count{{alias="best",target="{target}"}} 1.0' in metrics


async def test_a_bad_file_leaves_the_old_aliases_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """/health, the metrics and one log line report it until a good file replaces it."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    app = create_app(Settings(aliases=path), engine_with())
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:

        async def health() -> dict[str, str]:
            report: dict[str, str] = (await client.get("/health")).json()
            return report

        assert await health() == {"status": "ok"}
        write(path, {}, "{")
        report = await eventually(health, lambda report: "aliases" in report)
        assert "not valid JSON" in report["aliases"]
        assert "thinkgate_aliases_bad 1.0" in (await client.get("/metrics")).text
        assert (await client.post(PATH, json=ASK)).json()["scaling"]["alias"]["target"] == "old"
        write(path, {"best": {"new": 1}})
        await eventually(health, lambda report: "aliases" not in report)
        assert (await client.post(PATH, json=ASK)).json()["scaling"]["alias"]["target"] == "new"
    assert caplog.text.count("stay in force") == 1


async def test_a_target_that_is_not_served_is_the_operators_mistake(tmp_path: Path) -> None:
    """It is a 502 that names alias and target, and the metrics count it for that target."""
    path = write(tmp_path / "aliases.json", {"best": {"gone": 1}})
    async with gateway(engine_with(), aliases=path) as client:
        reply = await client.post(PATH, json=ASK)
        metrics = (await client.get("/metrics")).text
    assert reply.status_code == 502
    assert "'best' stands for 'gone'" in reply.json()["error"]["message"]
    assert 'thinkgate_target_requests_total{alias="best",status="502",target="gone"} 1.0' in metrics


async def test_failures_are_counted_by_target(tmp_path: Path) -> None:
    """The metrics count the status that the client gets, also for a refused request."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    async with gateway(engine_with(), aliases=path) as client:
        await client.post(PATH, json=ASK, headers={"X-Vote": "lottery"})
        metrics = (await client.get("/metrics")).text
    assert 'thinkgate_target_requests_total{alias="best",status="400",target="old"} 1.0' in metrics


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "valid dictionary"),
        ('{"best": []}', "best"),
        ('{"best": [{"share": 1}]}', r"best\.0\.model"),
        ('{"best": [{"model": "old", "share": -1}]}', r"best\.0\.share"),
        ('{"best": [{"model": "old", "weight": 1}]}', r"best\.0\.weight"),
        ('{"best": [{"model": "old", "share": 0}]}', "no target has a share"),
        ('{"best": [{"model": "old"}, {"model": "old"}]}', "the same model appears twice"),
        ('{"": [{"model": "old"}]}', "needs a name"),
    ],
)
def test_a_mistake_is_named(text: str, complaint: str) -> None:
    """The error is one sentence that says where the mistake is."""
    with pytest.raises(AliasesError, match=complaint):
        parse_aliases(text.encode(), json=True)


def test_toml_and_json_are_equal() -> None:
    """The same table can be TOML or JSON."""
    toml = parse_aliases(b'best = [{model = "old", share = 95}, {model = "new", share = 5}]')
    text = b'{"best": [{"model": "old", "share": 95}, {"model": "new", "share": 5}]}'
    assert toml == parse_aliases(text, json=True)
    with pytest.raises(AliasesError, match="not valid TOML"):
        parse_aliases(b"\xff")


def test_a_bad_first_file_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start there are no previous aliases, so `serve` ends with status 2."""
    monkeypatch.setenv("THINKGATE_ALIASES", str(tmp_path / "missing.toml"))
    monkeypatch.setenv("THINKGATE_UPSTREAM", "http://127.0.0.1:9/v1")
    assert main(["serve", "--port", "0"]) == 2
    assert "missing.toml can't be read" in capsys.readouterr().err


def test_a_file_that_goes_missing_changes_nothing(tmp_path: Path) -> None:
    """The aliases stay, the error appears, and the same file is read again once it is back."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    aliases = Aliases(path)
    path.rename(tmp_path / "away")
    aliases.reload()
    assert "can't be read" in (aliases.error or "")
    assert aliases.route("best", "") is not None
    (tmp_path / "away").rename(path)
    aliases.reload()
    assert aliases.error is None


keys = st.text(max_size=8)
shares = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), min_size=1).filter(
    lambda table: any(table.values())
)


def targets_of(table: dict[str, int]) -> list[Target]:
    """Return the targets of an alias."""
    return [Target(model=model, share=share) for model, share in table.items()]


@given(shares, keys)
def test_the_choice_depends_on_key_and_shares_alone(table: dict[str, int], key: str) -> None:
    """Neither the order of targets nor the unit of shares matters; a share of 0 gets no request."""
    target = choose_target(targets_of(table), key)
    assert table[target] > 0
    assert choose_target(targets_of(dict(reversed(table.items()))), key) == target
    assert choose_target(targets_of({model: 10 * share for model, share in table.items()}), key) == target


@given(st.integers(0, 99), st.integers(1, 100), keys)
def test_a_growing_share_only_takes(before: int, more: int, key: str) -> None:
    """A conversation that reaches the new model at one share reaches it at every larger share."""
    after = min(100, before + more)
    first = choose_target(targets_of({"old": 100 - before, "new": before}), key)
    second = choose_target(targets_of({"old": 100 - after, "new": after}), key)
    assert first == "old" or second == "new"


def test_shares_are_kept_over_many_conversations() -> None:
    """Over 4,000 keys, a share of a quarter gets a quarter, within five standard errors."""
    targets = targets_of({"old": 75, "new": 25})
    hits = sum(choose_target(targets, f"conversation {i}") == "new" for i in range(4000))
    assert abs(hits / 4000 - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_a_conversation_keeps_its_key() -> None:
    """Later turns keep the key and another beginning changes it; a `user` field alone decides it."""
    system = {"role": "system", "content": "Be short."}
    first, second = {"role": "user", "content": "3 + 4?"}, {"role": "user", "content": "And 5?"}
    turn = [first, {"role": "assistant", "content": "7"}, second]
    assert conversation_key({"messages": [system, first]}) == conversation_key({"messages": [system, *turn]})
    assert conversation_key({"messages": [first]}) != conversation_key({"messages": [system, first]})
    assert conversation_key({"messages": [first]}) != conversation_key({"messages": [second]})
    named = [conversation_key({"messages": [message], "user": "ada"}) for message in (first, second)]
    assert named[0] == named[1]
    assert conversation_key({"prompt": "a"}) != conversation_key({"prompt": "b"})
