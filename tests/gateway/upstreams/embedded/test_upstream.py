"""The embedded engine as an upstream, where it differs from other upstreams."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import create_app
from gateway.config import Settings
from gateway.demo.bundled import REASONER
from gateway.errors import UpstreamError
from gateway.upstreams.base import UpstreamRequest
from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions
from gateway.upstreams.embedded.upstream import EmbeddedUpstream
from tests.fakes import until

BODY = {"messages": [{"role": "user", "content": "Write a long story."}], "temperature": 1, "seed": 3}


@pytest.fixture
async def upstream() -> AsyncIterator[EmbeddedUpstream]:
    """An upstream with its own engine of two slots."""
    pytest.importorskip("xllamacpp")
    upstream = EmbeddedUpstream(EmbeddedEngine(EmbeddedOptions(slots=2, context=1024)))
    await upstream.start()
    await upstream.models()
    yield upstream
    await upstream.close()


async def answer(upstream: EmbeddedUpstream, model: str) -> str:
    """Return a model's greedy answer to a sum that only the demo's adapter can do."""
    question = "State the final answer to the following arithmetic problem: 4 + 7 + 7 ="
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
    reply = (await upstream.complete(UpstreamRequest({**body, "max_tokens": 24}))).body
    return str(reply["choices"][0]["message"]["content"])


@pytest.mark.embedded
async def test_each_adapter_is_a_model_and_so_is_the_base(tmp_path: Path) -> None:
    """At the same time, each answers as it does alone; relayed requests get the model that they name."""
    pytest.importorskip("xllamacpp")
    other = tmp_path / "other.gguf"
    other.symlink_to(REASONER)
    options = EmbeddedOptions(slots=3, context=1024, loras=(other, REASONER))
    upstream = EmbeddedUpstream(EmbeddedEngine(options))
    await upstream.start()
    try:
        cards = await upstream.models()
        assert list(cards) == ["other", "smollm2-reasoner", "SmolLM2-135M-Instruct"]
        assert {card.base for card in cards.values()} == {"SmolLM2-135M-Instruct"}
        assert [card.raw.get("parent") for card in cards.values()] == ["SmolLM2-135M-Instruct"] * 2 + [None]
        assert await upstream.models() is cards
        assert [card.raw["id"] for card in cards.values()] == list(cards)
        first, second, base = await asyncio.gather(*(answer(upstream, name) for name in cards))
        assert first == second != base
        assert [await answer(upstream, name) for name in reversed(cards)] == [base, second, first]
        prompt = {"prompt": "4 + 7 =", "temperature": 0, "max_tokens": 16, "seed": 1}
        relayed = {
            name: orjson.loads(b"".join([part async for part in upstream.relay("completions", payload)]))
            for name in cards
            for payload in [orjson.dumps({**prompt, "model": name})]
        }
        texts = {name: reply["choices"][0]["text"] for name, reply in relayed.items()}
        assert texts["other"] == texts["smollm2-reasoner"] != texts["SmolLM2-135M-Instruct"]
        assert [reply["model"] for reply in relayed.values()] == list(cards)
    finally:
        await upstream.close()


class CannedReply:
    """A reply of the given blocks."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, blocks: tuple[bytes, ...]) -> None:
        self.silence = SimpleNamespace(token=False, shorten=lambda seconds: None)
        self._blocks = [block for block in blocks if block]

    async def next(self) -> bytes:
        """Return the next block."""
        return self._blocks.pop(0) if self._blocks else b""


class Cutting(EmbeddedUpstream):
    """Adapters "first" and "second" on a missing engine; replies are the given blocks."""

    def __init__(self, *blocks: bytes) -> None:
        options = EmbeddedOptions(Path("base.gguf"), loras=(Path("first.gguf"), Path("second.gguf")))
        super().__init__(EmbeddedEngine(options))
        self.blocks = blocks
        self.sent: list[tuple[str, Any]] = []

    @asynccontextmanager
    async def _open(self, url: str, body: Any, **options: Any) -> AsyncIterator[Any]:
        payload = self._payload(url, body)
        self.sent.append((url, orjson.loads(payload or b"{}")))
        yield CannedReply(self.blocks)


def on(upstream: Cutting) -> list[str]:
    """Return the adapters that the request switched on."""
    _, body = upstream.sent[-1]
    return [("first", "second")[adapter["id"]] for adapter in body["lora"] if adapter["scale"]]


CHOICE = b'{"index":0,"text":"\\"model\\":\\"first\\"","finish_reason":"stop"}'
EVENT = b'data: {"model":"first","choices":[' + CHOICE + b"]}\n\n"


@given(st.lists(st.integers(0, 2 * len(EVENT)), max_size=6), st.booleans())
async def test_a_relayed_reply_names_the_model_that_was_asked(cuts: list[int], ended: bool) -> None:
    """Wherever its bytes are cut, only the model's name changes."""
    whole = EVENT * 2 if ended else (EVENT * 2).rstrip()
    edges = [0, *sorted(cuts), len(whole)]
    upstream = Cutting(*(whole[a:b] for a, b in pairwise(edges)))
    said = [
        part async for part in upstream.relay("completions", b'{"model":"second","prompt":"x","stream":true}')
    ]
    assert b"".join(said) == whole.replace(b'{"model":"first"', b'{"model":"second"')
    assert on(upstream) == ["second"]


@pytest.mark.parametrize(
    ("named", "adapters"),
    [({"model": "second"}, ["second"]), ({"model": "base"}, []), ({"model": ""}, ["first"]),
     ({"model": None}, ["first"]), ({}, ["first"])],
)  # fmt: skip
async def test_a_request_gets_the_model_it_names_or_the_first(
    named: dict[str, Any], adapters: list[str]
) -> None:
    """An empty name counts as none; the reply names the model that answered."""
    upstream = Cutting(EVENT, b"data: [DONE]\n\n")
    chunks = [
        chunk async for chunk in upstream.stream(UpstreamRequest({**named, "prompt": "x"}, "completions"))
    ]
    assert on(upstream) == adapters
    assert chunks[0].event["model"] == (named.get("model") or "first")
    said = [
        part
        async for part in upstream.relay(
            "completions", orjson.dumps({**named, "prompt": "x", "stream": True})
        )
    ]
    assert on(upstream) == adapters
    assert orjson.loads(b"".join(said).splitlines()[0].removeprefix(b"data: "))["model"] == (
        named.get("model") or "first"
    )


async def test_a_name_that_is_not_served_is_refused() -> None:
    """llama.cpp would answer with its base, and nobody would notice a scorer's misspelt model."""
    upstream = Cutting(EVENT)
    with pytest.raises(
        UpstreamError, match=r"serves no model 'frist'; it serves first, second, base\."
    ) as no:
        await anext(aiter(upstream.stream(UpstreamRequest({"model": "frist", "prompt": "x"}, "completions"))))
    assert no.value.status == 404
    assert not upstream.sent


async def running(upstream: EmbeddedUpstream) -> int:
    """Return how many generations run in the engine."""
    async with upstream._open(f"{upstream._root}/slots", None, method="GET") as reply:
        return sum(slot["is_processing"] for slot in orjson.loads(await reply.whole()))


@pytest.mark.embedded
async def test_a_whole_reply_is_what_an_engine_would_have_sent(upstream: EmbeddedUpstream) -> None:
    """Choices, finish reasons, logprobs and usage equal those of an unstreamed reply."""
    plan = UpstreamRequest(
        {**BODY, "n": 2, "max_tokens": 6, "ignore_eos": True, "logprobs": True, "top_logprobs": 1}
    )
    body = (await upstream.complete(plan)).body
    assert body["object"] == "chat.completion"
    assert body["model"] == "SmolLM2-135M-Instruct"
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    for choice in body["choices"]:
        assert choice["finish_reason"] == "length"
        assert choice["message"]["role"] == "assistant"
        tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
        assert "".join(tokens) == choice["message"]["content"]
    assert body["usage"]["completion_tokens"] == 12
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 12


@pytest.mark.embedded
async def test_giving_up_a_whole_reply_ends_its_generation(upstream: EmbeddedUpstream) -> None:
    """Cancelling frees the slot, although llama.cpp itself continues for an unstreamed client that left."""
    plan = UpstreamRequest({**BODY, "max_tokens": 900, "ignore_eos": True})
    task = asyncio.create_task(upstream.complete(plan))
    async with asyncio.timeout(30):
        while not await running(upstream):
            assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while await running(upstream):
            pass


@pytest.mark.embedded
async def test_many_streams_in_a_row_never_break_off(upstream: EmbeddedUpstream) -> None:
    """Each request succeeds, also right after a streamed one of the same client."""
    for _ in range(40):
        chunks = [chunk async for chunk in upstream.stream(UpstreamRequest({**BODY, "max_tokens": 2}))]
        assert chunks[-1].usage is not None


ENGINE = """
import json, sys
json.loads(sys.stdin.readline())
print(json.dumps({"port": 9}), flush=True)
sys.stdin.read()
"""


async def test_an_engine_that_dies_is_started_again(tmp_path: Path) -> None:
    """By itself, after a moment; `/health` says so from then on."""
    model = tmp_path / "base.gguf"
    model.write_bytes(b"GGUF")
    engine = EmbeddedEngine(EmbeddedOptions(model), (sys.executable, "-c", ENGINE))
    upstream = EmbeddedUpstream(engine)
    await upstream.start()
    try:
        first = engine.pid
        assert first is not None
        assert upstream.notices() == {}
        os.kill(first, signal.SIGKILL)
        await engine.wait()
        assert upstream.notices() == {"embedded_engine": {"restarts": 0, "running": False}}
        await until(lambda: engine.pid not in (None, first), "another process")
        await until(lambda: upstream.notices() != {}, "its report")
        assert upstream.notices() == {"embedded_engine": {"restarts": 1, "running": True}}
        transport = httpx.ASGITransport(create_app(Settings(), upstream))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            health = await client.get("/health")
        assert health.json() == {"status": "ok", **upstream.notices()}
    finally:
        await upstream.close()
    assert engine.pid is None


async def test_an_engine_that_cannot_start_again_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its model is away for a while; the log says so."""
    model = tmp_path / "base.gguf"
    model.write_bytes(b"GGUF")
    engine = EmbeddedEngine(EmbeddedOptions(model), (sys.executable, "-c", ENGINE))
    upstream = EmbeddedUpstream(engine)
    await upstream.start()
    try:
        model.unlink()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await engine.wait()
        await until(lambda: "can't be read" in caplog.text, "the failure in the log")
        assert upstream.notices() == {"embedded_engine": {"restarts": 0, "running": False}}
        model.write_bytes(b"GGUF")
        await until(lambda: engine.pid is not None, "the process")
    finally:
        await upstream.close()
