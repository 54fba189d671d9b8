"""Names that stand for models, a share each, and a file that may be replaced at any time."""

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

from gateway.aliases import Aliases, AliasesError, Target, choose, conversation_key, parse_aliases
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
    """Replaces the file atomically by these shares (or this text)."""
    held = {name: [{"model": m, "share": s} for m, s in shares.items()] for name, shares in aliases.items()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(held) if text is None else text)
    os.replace(part, path)
    return path


@asynccontextmanager
async def gateway(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a served gateway."""
    app = create_app(Settings(**settings), upstream)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def backend_for(*scripts: Any) -> ScriptedUpstream:
    """An engine with two models."""
    return ScriptedUpstream(*(scripts or [says("The answer is 7.")]), models=SERVED)


async def eventually(
    ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], seconds: float = 20
) -> Any:
    """The first answer of which something holds; fails where none comes in time."""
    deadline = time.monotonic() + seconds
    while not holds(told := await ask()):
        assert time.monotonic() < deadline, f"it stayed {told}"
        await asyncio.sleep(0.02)
    return told


async def test_an_alias_is_a_model_like_any_other(tmp_path: Path) -> None:
    """Listed, asked for with a suffix, and told apart in the reply: `model` is what answered."""
    path = write(tmp_path / "aliases.json", {"best": {"new": 1}})
    upstream = backend_for()
    async with gateway(upstream, aliases=path) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        reply = (await client.post(PATH, json={**ASK, "model": "best:low@3"})).json()
        single = (await client.get("/v1/models/best")).json()
    assert [model["id"] for model in listed] == ["old", "new", "best"]
    assert single["targets"] == [{"model": "new", "share": 1.0}]
    assert {body["model"] for body in upstream.bodies} == {"new"}
    assert reply["scaling"]["alias"] == {"name": "best", "target": "new"}
    assert reply["scaling"]["samples"]["asked"] == 3
    assert reply["scaling"]["budget"]["asked"] == "low"


async def test_a_target_may_say_how(tmp_path: Path) -> None:
    """A level and samples in the target's name are an alias's defaults; what the client says beats them."""
    path = write(tmp_path / "aliases.json", {"best": {"new:low@3": 1}})
    async with gateway(backend_for(), aliases=path) as client:
        plain = (await client.post(PATH, json=ASK)).json()["scaling"]
        said = (await client.post(PATH, json={**ASK, "model": "best:high@2"})).json()["scaling"]
    assert (plain["budget"]["asked"], plain["samples"]["asked"]) == ("low", 3)
    assert (said["budget"]["asked"], said["samples"]["asked"]) == ("high", 2)


async def test_an_alias_hides_a_model_of_its_name(tmp_path: Path) -> None:
    """So a model can be replaced under the name that clients have always used; others stay as they are."""
    path = write(tmp_path / "aliases.json", {"old": {"new": 1}})
    upstream = backend_for()
    async with gateway(upstream, aliases=path) as client:
        plain = (await client.post(PATH, json={**ASK, "model": "new"})).json()
        await client.post(PATH, json={**ASK, "model": "old"})
        unknown = await client.post(PATH, json={**ASK, "model": "other"})
        listed = (await client.get("/v1/models")).json()["data"]
    assert "alias" not in plain["scaling"]
    assert [body["model"] for body in upstream.bodies] == ["new", "new"]
    assert unknown.status_code == 404
    assert len(listed) == 2


async def test_a_replaced_file_counts_and_no_stream_is_dropped(tmp_path: Path) -> None:
    """A stream goes on with the model that it began with, while new requests meet the other one."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    gate = asyncio.Event()
    upstream = backend_for(says("The answer ", gate, "is 7."), says("8"))
    app = create_app(Settings(aliases=path), upstream)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", PATH, json={**ASK, "stream": True}) as stream:
            write(path, {"best": {"new": 1}})

            async def target() -> Any:
                return (await client.get("/v1/models/best")).json()["targets"][0]["model"]

            await eventually(target, lambda told: told == "new")
            other = (await client.post(PATH, json=ASK)).json()
            gate.set()
            text = (await stream.aread()).decode()
        metrics = (await client.get("/metrics")).text
    events = events_of(text)
    assert (
        "".join(c["delta"].get("content") or "" for e in events for c in e["choices"]) == "The answer is 7."
    )
    assert events[-1]["scaling"]["alias"]["target"] == "old"
    assert other["scaling"]["alias"]["target"] == "new"
    for target in ("old", "new"):
        assert (
            f'thinkgate_target_requests_total{{alias="best",status="200",target="{target}"}} 1.0' in metrics
        )
        assert f'thinkgate_target_seconds_count{{alias="best",target="{target}"}} 1.0' in metrics


async def test_a_bad_file_leaves_the_old_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told on /health, in the metrics and once in the log; a good one ends it."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    app = create_app(Settings(aliases=path), backend_for())
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:

        async def health() -> dict[str, str]:
            told: dict[str, str] = (await client.get("/health")).json()
            return told

        assert await health() == {"status": "ok"}
        write(path, {}, "{")
        told = await eventually(health, lambda told: "aliases" in told)
        assert "not valid JSON" in told["aliases"]
        assert "thinkgate_aliases_bad 1.0" in (await client.get("/metrics")).text
        assert (await client.post(PATH, json=ASK)).json()["scaling"]["alias"]["target"] == "old"
        write(path, {"best": {"new": 1}})
        await eventually(health, lambda told: "aliases" not in told)
        assert (await client.post(PATH, json=ASK)).json()["scaling"]["alias"]["target"] == "new"
    assert caplog.text.count("stay in force") == 1


async def test_a_target_that_is_not_served_is_the_operators_mistake(tmp_path: Path) -> None:
    """A 502 that names both, counted for that target."""
    path = write(tmp_path / "aliases.json", {"best": {"gone": 1}})
    async with gateway(backend_for(), aliases=path) as client:
        reply = await client.post(PATH, json=ASK)
        metrics = (await client.get("/metrics")).text
    assert reply.status_code == 502
    assert "'best' stands for 'gone'" in reply.json()["error"]["message"]
    assert 'thinkgate_target_requests_total{alias="best",status="502",target="gone"} 1.0' in metrics


async def test_failures_are_counted_by_target(tmp_path: Path) -> None:
    """What a client gets is what the target is charged with, a refused request too."""
    path = write(tmp_path / "aliases.json", {"best": {"old": 1}})
    async with gateway(backend_for(), aliases=path) as client:
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
def test_what_cannot_be_is_named(text: str, complaint: str) -> None:
    """One sentence that says where."""
    with pytest.raises(AliasesError, match=complaint):
        parse_aliases(text.encode(), json=True)


def test_toml_says_the_same() -> None:
    """The same table, in the other format."""
    toml = parse_aliases(b'best = [{model = "old", share = 95}, {model = "new", share = 5}]')
    text = b'{"best": [{"model": "old", "share": 95}, {"model": "new", "share": 5}]}'
    assert toml == parse_aliases(text, json=True)
    with pytest.raises(AliasesError, match="not valid TOML"):
        parse_aliases(b"\xff")


def test_a_bad_file_at_the_start_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing yet to stay in force."""
    monkeypatch.setenv("THINKGATE_ALIASES", str(tmp_path / "missing.toml"))
    monkeypatch.setenv("THINKGATE_UPSTREAM", "http://127.0.0.1:9/v1")
    assert main(["serve", "--port", "0"]) == 2
    assert "missing.toml can't be read" in capsys.readouterr().err


def test_a_file_that_goes_missing_changes_nothing(tmp_path: Path) -> None:
    """The aliases stay, the error is told, and the same file put back is read again."""
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
    lambda held: any(held.values())
)


def targets_of(held: dict[str, int]) -> list[Target]:
    """The targets of an alias."""
    return [Target(model=model, share=share) for model, share in held.items()]


@given(shares, keys)
def test_the_choice_depends_on_key_and_shares_alone(held: dict[str, int], key: str) -> None:
    """Not on the targets' order, nor on the shares' unit; and nobody meets a target without a share."""
    chosen = choose(targets_of(held), key)
    assert held[chosen] > 0
    assert choose(targets_of(dict(reversed(held.items()))), key) == chosen
    assert choose(targets_of({model: 10 * share for model, share in held.items()}), key) == chosen


@given(st.integers(0, 99), st.integers(1, 100), keys)
def test_a_growing_share_only_takes(before: int, more: int, key: str) -> None:
    """Whoever meets the candidate at one share meets it at every larger one."""
    after = min(100, before + more)
    first = choose(targets_of({"old": 100 - before, "new": before}), key)
    second = choose(targets_of({"old": 100 - after, "new": after}), key)
    assert first == "old" or second == "new"


def test_shares_are_kept_over_many_conversations() -> None:
    """A quarter is a quarter: within five standard errors over 4,000 keys."""
    targets = targets_of({"old": 75, "new": 25})
    taken = sum(choose(targets, f"conversation {i}") == "new" for i in range(4000))
    assert abs(taken / 4000 - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_a_conversation_keeps_its_key() -> None:
    """Later turns change nothing, another beginning does; a user named is the key whatever is said."""
    system = {"role": "system", "content": "Be short."}
    first, second = {"role": "user", "content": "3 + 4?"}, {"role": "user", "content": "And 5?"}
    turn = [first, {"role": "assistant", "content": "7"}, second]
    assert conversation_key({"messages": [system, first]}) == conversation_key({"messages": [system, *turn]})
    assert conversation_key({"messages": [first]}) != conversation_key({"messages": [system, first]})
    assert conversation_key({"messages": [first]}) != conversation_key({"messages": [second]})
    named = [conversation_key({"messages": [each], "user": "ada"}) for each in (first, second)]
    assert named[0] == named[1]
    assert conversation_key({"prompt": "a"}) != conversation_key({"prompt": "b"})
