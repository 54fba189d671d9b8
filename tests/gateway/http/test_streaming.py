"""A stream is never silent for long, and ends in a defined way whatever happens behind it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from pydantic import HttpUrl
from starlette.types import Message

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import GatewayError, UpstreamError
from gateway.http.streaming import EventStream
from tests.fakes import ScriptedUpstream, Step, Text, says, until
from tests.serving import serving
from tests.stub_engine import Events, stub_engine

ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ASK,
    "/v1/responses": {"model": "tiny", "input": "What is 3 + 4?"},
    "/v1/messages": {**ASK, "max_tokens": 100},
}
BROKEN = UpstreamError(503, "out of order", {"type": "overloaded"})
QUICK = Settings(heartbeat=0.01)


@asynccontextmanager
async def streaming(
    path: str, upstream: ScriptedUpstream, headers: Mapping[str, str] | None = None, **fields: Any
) -> AsyncIterator[httpx.Response]:
    """A streamed request to a gateway whose heartbeat is quick, on a real connection."""
    body = {**REQUESTS[path], "stream": True, **fields}
    async with (
        serving(create_app(QUICK, upstream)) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
        client.stream("POST", path, json=body, headers=headers) as response,
    ):
        yield response


async def beats(lines: AsyncIterator[str], count: int) -> list[str]:
    """Read lines until so many of them are a sign of life; return all but blank ones."""
    seen: list[str] = []
    async for line in lines:
        if line:
            seen.append(line)
        count -= line.startswith(":") or line == "event: ping"
        if not count:
            break
    return seen


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_slow_start_sends_comments(path: str) -> None:
    """The status and the signs of life don't wait for the first token; the reply then comes whole."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(says(gate, "The answer is 7."))
    async with streaming(path, upstream) as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert set(await beats(lines, 3)) == {": still working"}
        gate.set()
        rest = [line async for line in lines]
    assert "The answer is 7." in "".join(rest)
    assert upstream.dropped == 0


@pytest.mark.parametrize(
    ("path", "sign"),
    [
        ("/v1/chat/completions", ": still working"),
        ("/v1/responses", ": still working"),
        ("/v1/messages", "event: ping"),
    ],
)
async def test_a_pause_between_two_tokens_sends_the_dialects_own_sign(path: str, sign: str) -> None:
    """Anthropic's clients know a ping; the others skip comments."""
    gate = asyncio.Event()
    async with streaming(path, ScriptedUpstream(says("The answer ", gate, "is 7."))) as response:
        lines = response.aiter_lines()
        seen = await beats(lines, 2)
        gate.set()
        assert seen.count(sign) == 2
        assert "is 7." in "".join([line async for line in lines])


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize(
    ("steps", "headers", "fields"),
    [
        (["a"], {"X-Samples": "2", "X-Stop": "none"}, {}),
        ([Text(reasoning="Hm.")], {}, {"include_reasoning": False}),
    ],
)
async def test_votes_and_hidden_thinking_are_no_silence(
    path: str, steps: list[str | Step], headers: dict[str, str], fields: dict[str, Any]
) -> None:
    """Text that the client doesn't see counts as none."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(says(*steps, gate, "The answer is 7."))
    async with streaming(path, upstream, headers, **fields) as response:
        lines = response.aiter_lines()
        seen = await beats(lines, 3)
        assert len([line for line in seen if line in (": still working", "event: ping")]) == 3
        gate.set()
        assert "The answer is 7." in "".join([line async for line in lines])


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_failure_before_any_sign_of_life_has_its_own_status(path: str) -> None:
    """An early error is an error to every client."""
    async with streaming(path, ScriptedUpstream(says(BROKEN))) as response:
        assert response.status_code == 503
        assert "out of order" in (await response.aread()).decode()


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_failure_after_a_sign_of_life_is_an_event(path: str) -> None:
    """The status has been sent, so the error comes as an event, and nothing says that all is done."""
    gate = asyncio.Event()
    async with streaming(path, ScriptedUpstream(says(gate, BROKEN))) as response:
        lines = response.aiter_lines()
        await beats(lines, 1)
        gate.set()
        rest = [line async for line in lines if line and not line.startswith(":")]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert error["message"] == "out of order"
    assert "data: [DONE]" not in rest


async def test_the_stream_helper_of_responses_raises_a_failure_after_a_sign_of_life() -> None:
    """The helper accepts a failure only of a response that was created."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(says(gate, BROKEN))
    async with (
        serving(create_app(QUICK, upstream)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        client.responses.stream(model="tiny", input="What is 3 + 4?") as stream,  # its status is out
    ):
        gate.set()
        with pytest.raises(openai.APIError, match="out of order"):
            await stream.until_done()


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_client_that_hangs_up_between_signs_of_life_ends_the_generation(path: str) -> None:
    """A heartbeat doesn't keep alive what nobody reads."""
    upstream = ScriptedUpstream(says(asyncio.Event()))
    async with serving(create_app(QUICK, upstream)) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", path, json={**REQUESTS[path], "stream": True}) as response:
            await beats(response.aiter_lines(), 2)
            assert upstream.open == 1
        await until(lambda: upstream.dropped == 1 and upstream.open == 0)


async def test_a_relayed_completion_is_never_silent_either() -> None:
    """Its signs of life stand between the engine's own events, which stay as they are."""
    gate, text = asyncio.Event(), {"choices": [{"index": 0, "text": "7", "finish_reason": "stop"}]}
    async with stub_engine() as engine:
        engine.answers("/v1/completions", Events([gate, text]))
        settings = Settings(heartbeat=0.01, upstream=HttpUrl(engine.base_url))
        async with (
            serving(create_app(settings)) as url,
            httpx.AsyncClient(base_url=url) as client,
            client.stream(
                "POST", "/v1/completions", json={"model": "tiny", "prompt": "3 + 4 =", "stream": True}
            ) as response,
        ):
            assert response.status_code == 200
            lines = response.aiter_lines()
            assert set(await beats(lines, 3)) == {": still working"}
            gate.set()
            rest = [line async for line in lines if line and not line.startswith(":")]
    assert [json.loads(line.removeprefix("data: ")) for line in rest[:-1]] == [text]
    assert rest[-1] == "data: [DONE]"


class Stream:
    """An `EventStream` over a source, and what it sends; `slow` holds up the sending."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], heartbeat: Callable[[], bytes] = lambda: b": beat\n\n"
    ) -> None:
        self.sent: list[bytes] = []
        self.waiting = 0
        self.slow = asyncio.Event()
        self.slow.set()
        self.status: int | None = None
        self._stream = EventStream(
            source,
            {},
            period=0.01,
            heartbeat=heartbeat,
            explain=lambda error: error,
            fail=lambda error: f"data: {error.message}\n\n".encode(),
            on_end=self._end,
        )

    async def run(self) -> None:
        """Send the whole stream."""
        await self._stream({"type": "http", "method": "POST", "path": "/"}, self._receive, self._send)

    def _end(self, status: int) -> None:
        self.status = status

    async def _receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError("the client stays")

    async def _send(self, message: Message) -> None:
        self.waiting += 1
        await self.slow.wait()
        self.waiting -= 1
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])


async def test_a_slow_reader_holds_up_the_source() -> None:
    """While a block can't be sent, nothing more is read from the engine, and no sign of life piles up."""
    pulled = 0

    async def source() -> AsyncGenerator[bytes, None]:
        nonlocal pulled
        for _ in range(100):
            pulled += 1
            yield b"data: x\n\n"

    stream = Stream(source())
    stream.slow.clear()
    running = asyncio.create_task(stream.run())
    await asyncio.wait([running], timeout=0.1)
    assert (pulled, stream.sent) == (1, [])
    stream.slow.set()
    await running
    assert stream.sent == [b"data: x\n\n"] * 100 + [b""]
    assert stream.status == 200


async def test_no_sign_of_life_stands_within_an_event() -> None:
    """A relayed block may end anywhere; a comment in the middle of an event would break it."""
    gate = asyncio.Event()

    async def source() -> AsyncGenerator[bytes, None]:
        yield b'data: {"text": '
        await asyncio.wait([asyncio.create_task(gate.wait())], timeout=0.1)
        yield b'"x"}\n\n'
        await until(lambda: b": beat\n\n" in stream.sent)

    stream = Stream(source())
    await stream.run()
    assert b"".join(stream.sent).startswith(b'data: {"text": "x"}\n\n: beat\n\n')


async def test_a_bug_after_the_status_is_logged_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that the reply is not complete, and the log has the traceback once."""

    async def source() -> AsyncGenerator[bytes, None]:
        yield b"data: x\n\n"
        raise ZeroDivisionError("a bug")

    stream = Stream(source())
    await stream.run()
    assert stream.sent[-1] == b"data: The gateway failed on this request (ZeroDivisionError).\n\n"
    assert stream.status == 500
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_bug_in_a_sign_of_life_is_logged_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """It fails the stream as any other bug does, with the next block."""
    broken = asyncio.Event()

    def heartbeat() -> bytes:
        broken.set()
        raise ZeroDivisionError("a bug")

    async def source() -> AsyncGenerator[bytes, None]:
        yield b"data: x\n\n"
        await broken.wait()
        yield b"data: y\n\n"

    stream = Stream(source(), heartbeat)
    await stream.run()
    assert stream.sent == [
        b"data: x\n\n",
        b"data: The gateway failed on this request (ZeroDivisionError).\n\n",
    ]
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_stream_that_was_given_up_sends_no_more_signs_of_life() -> None:
    """Not even where a slow reader held up the last one."""

    async def silence() -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    given_up, other = Stream(silence()), Stream(silence())
    given_up.slow.clear()
    running = [asyncio.create_task(stream.run()) for stream in (given_up, other)]
    await until(lambda: given_up.waiting == 1)
    running[0].cancel()
    await asyncio.wait(running[:1])
    given_up.slow.set()
    beats_so_far = len(other.sent)
    await until(lambda: len(other.sent) > beats_so_far + 3)
    assert given_up.sent == []
    running[1].cancel()
    await asyncio.wait(running)


async def test_an_error_is_told_in_the_clients_terms() -> None:
    """`explain` decides on the status too."""

    async def source() -> AsyncGenerator[bytes, None]:
        raise UpstreamError(404, "no such model")
        yield b""

    stream = Stream(source())
    with pytest.raises(GatewayError, match="no such model"):
        await stream.run()
    assert (stream.sent, stream.status) == ([], 404)
