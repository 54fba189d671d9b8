"""What a client gets when the engine misbehaves: each kind of fault, and its outcome.

`LOST` lists the faults that cost a sample. One sample alone is then an error with the listed status, and a
vote gets its answer from the other samples. `UNDERSTOOD` lists odd replies that cost nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from pydantic import HttpUrl, SecretStr

from gateway.app import create_app
from gateway.config import Settings
from tests.faulty_engine import DONE, RIGHT, Fault, FaultyEngine, Query, Wire, events, faulty_engine, reply
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]

KEY = "sk-the-gateways-own-0d1f"
"""The key that the gateway sends upstream. The engine repeats it in its errors."""
WRONG = "Forget that: it is \\boxed{13}."
"""The text of replies that must not count."""
ENVELOPE = 200 * 2**10
"""Bytes that are more than the settings below allow, of whatever they limit."""


# The faults: functions that make a reply of a request.


def odd(change: Callable[[Json, Query], object], text: str = WRONG) -> Fault:
    """Return the fault of a good reply that `change` has spoiled; streamed, its first event."""

    def fault(query: Query) -> Wire:
        indices = range(query.choices)
        end = None if query.streamed else "stop"
        body = query.body(*(query.choice(text, end, index) for index in indices))
        change(body, query)
        if not query.streamed:
            return reply(body)
        return events([body, *(query.body(query.choice(None, "stop", index)) for index in indices)])

    return fault


def field_of_reply(**fields: Any) -> Fault:
    """Return the fault of a reply with these fields at the top."""
    return odd(lambda body, _: body.update(fields))


def field_of_choices(**fields: Any) -> Fault:
    """Return the fault of a reply whose every choice has these fields."""
    return odd(lambda body, _: [choice.update(fields) for choice in body["choices"]])


def message(value: Any) -> Fault:
    """Return the fault of a reply with this message, or this delta where it is streamed."""

    def change(body: Json, query: Query) -> None:
        for choice in body["choices"]:
            choice["delta" if query.streamed else "message"] = value

    return odd(change)


def ends(reason: Any) -> Fault:
    """Return the fault of a reply with a text and this finish reason."""
    return lambda query: query.says(WRONG, reason)


def error(value: Any, *, before: str = "", name: bytes = b"") -> Fault:
    """Return the fault of an error with status 200: the whole reply, or an event after the text `before`."""

    def fault(query: Query) -> Wire:
        body = json.loads(json.dumps(value).replace("KEY", query.key))
        if not query.streamed:
            return reply(body)
        text = [query.body(query.choice(before))] if before else []
        return events([*text, name + b"data: " + json.dumps(body).encode() + b"\n\n"])

    return fault


def refusal(status: int, message: str = "Not now", **headers: str) -> Fault:
    """Return the fault of an error status."""

    def fault(query: Query) -> Wire:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"error": {"message": f"{message} ({query.key}): {WRONG}", "type": "busy", "code": None}}
        return reply(body, status, named)

    return fault


def broken(streamed: Wire | Callable[[Query], Wire], whole: Wire) -> Fault:
    """Return a fault whose bytes are given for both forms."""

    def fault(query: Query) -> Wire:
        if not query.streamed:
            return whole
        return streamed if isinstance(streamed, Wire) else streamed(query)

    return fault


def after_text(then: Literal["close", "reset", "silence", "comments"]) -> Callable[[Query], Wire]:
    """Return a stream that has begun with text, and then goes on so."""
    return lambda query: events([query.body(query.choice(WRONG))], then=then)


def raw(payload: bytes, then: Literal["keep", "close", "reset", "silence"] = "close") -> Fault:
    """Return a fault that is the same whatever was asked."""
    return lambda query: Wire(payload, then)


def huge(text: str, *, gzipped: bool = False, pieces: int = 1) -> Fault:
    """Return the fault of a reply with a huge text, in so many pieces where it is streamed."""

    def fault(query: Query) -> Wire:
        if query.streamed:
            parts = [query.body(query.choice(text[i::pieces])) for i in range(pieces)]
            return events([*parts, query.body(query.choice(None, "stop"))], gzipped=gzipped)
        body = json.dumps(query.body(query.choice(text, "stop"))).encode()
        if not gzipped:
            return reply(body)
        import gzip

        return reply(gzip.compress(body), headers={"Content-Encoding": "gzip"})

    return fault


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    `name` is what the user sees. `status` is the status of the error where one sample alone meets the fault.
    `begun`: its stream shows text before it fails, so the error comes as an event. `named` is a word of the
    error message, such as a setting. `again`: a vote draws its samples again. `quiet`: it takes `IDLE`
    seconds until the gateway gives up.
    """

    name: str
    fault: Fault
    status: int = 502
    begun: bool = False
    named: str = ""
    code: str | None = None
    again: bool = True
    quiet: bool = False
    headers: dict[str, str] = field(default_factory=dict)


FAILED = {"message": f"KEY failed: {WRONG}", "type": "internal", "code": None}
BUSY = {"message": "Slow down", "type": "busy", "code": 429}
IDLE = 0.5
OPEN_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"

LOST = [
    # The engine ends a sample before its end.
    Kind("the engine is paused or gets new weights", ends("abort"), begun=True, code="abort"),
    Kind("the engine fails in a sample", ends("error"), begun=True, code="error"),
    Kind(
        "a filter cuts the reply", ends("content_filter"), 400, begun=True, code="content_filter", again=False
    ),
    Kind("the finish reason is unknown", ends("preempted"), begun=True, code="preempted"),
    Kind("the finish reason is missing", ends(None), begun=True),
    Kind("the finish reason is a number", field_of_choices(finish_reason=3)),
    Kind("the finish reason is a list", field_of_choices(finish_reason=["stop"])),
    # The engine reports an error, with status 200.
    Kind("an error in a 200", error({"error": FAILED}, before=WRONG), begun=True),
    Kind("an error before the first token", error({"error": FAILED})),
    Kind("an error that is a word", error({"error": "out of memory"}), named="out of memory"),
    Kind("an error with its own status", error({"error": BUSY}), 429, named="Slow down"),
    Kind("an error with a status in digits", error({"error": {**BUSY, "code": "503"}}), 503),
    Kind("an error about the gateway's key", error({"error": {**FAILED, "code": 401}})),
    Kind("an error in vLLM's old shape", error({"object": "error", **FAILED}, before=WRONG), begun=True),
    Kind("an event named error", error({"error": FAILED}, before=WRONG, name=b"event: error\n"), begun=True),
    # The engine refuses the request.
    Kind("too many requests", refusal(429, retry_after="7"), 429, headers={"retry-after": "7"}),
    Kind("overloaded", refusal(503, retry_after="3"), 503, headers={"retry-after": "3"}),
    Kind(
        "rate limited by tokens",
        refusal(429, x_ratelimit_remaining_tokens="0"),
        429,
        headers={"x-ratelimit-remaining-tokens": "0"},
    ),
    Kind("a request that the engine can't take", refusal(400), 400, again=False),
    Kind("a prompt that is too long", refusal(413), 413, again=False),
    Kind("the gateway's key is refused", refusal(401), 502, named="key"),
    Kind("the gateway's key may not do this", refusal(403), 502, named="key"),
    Kind("an odd status", refusal(418), 418),
    Kind("a status that is no answer", refusal(300), 502),
    Kind("a proxy's error page", lambda query: reply(b"<h1>Bad gateway</h1>", 502), 502),
    # The connection fails.
    Kind("the connection ends before the reply", raw(b"")),
    Kind("the connection is reset before the reply", raw(b"", "reset")),
    Kind(
        "the engine ends the connection in mid-reply",
        broken(after_text("close"), Wire(OPEN_JSON, "close")),
        begun=True,
    ),
    Kind("the engine dies in mid-reply", broken(after_text("reset"), Wire(OPEN_JSON, "reset")), begun=True),
    Kind("no HTTP at all", raw(b"220 mail.example ESMTP\r\n")),
    Kind("an engine that says nothing", raw(b"", "silence"), 504, quiet=True, named="first_token_timeout"),
    Kind(
        "an engine that falls silent",
        broken(after_text("silence"), Wire(OPEN_JSON, "silence")),
        504,
        begun=True,
        quiet=True,
        named="idle_timeout",
    ),
    Kind(
        "an engine that sends only comments",
        broken(after_text("comments"), Wire(OPEN_JSON, "silence")),
        504,
        begun=True,
        quiet=True,
        named="idle_timeout",
    ),
    # The bytes are no reply.
    Kind(
        "a stream that just ends",
        broken(lambda query: events([query.body(query.choice(WRONG))], done=False), reply({"id": "x"})),
        begun=True,
    ),
    Kind("nothing but the end", broken(events([]), reply({"choices": []}))),
    Kind("an empty reply", lambda query: reply(b"")),
    Kind("no content", raw(b"HTTP/1.1 204 No Content\r\n\r\n", "keep")),
    Kind(
        "a web page",
        lambda query: reply(b"<h1>Welcome</h1> \\boxed{13}", headers={"Content-Type": "text/html"}),
    ),
    Kind("JSON that breaks off", broken(events([b'data: {"choices":[{"in\n\n']), reply(b'{"choices":[{"in'))),
    Kind("a list in place of an object", broken(events([b"data: [13]\n\n"]), reply(b"[13]"))),
    Kind(
        "choices that are null",
        broken(
            lambda query: events([query.body(choices=None), query.body(choices=None)]),
            reply({"choices": None}),
        ),
    ),
    Kind("choices that are a word", field_of_reply(choices="none")),
    Kind("choices that are an object", field_of_reply(choices={"index": 0})),
    Kind("a choice that is null", field_of_reply(choices=[None])),
    Kind("fields that are nested too deeply", field_of_reply(x=json.loads("[" * 300 + "]" * 300))),
    Kind("a message that is a word", message("hello")),
    Kind("content that is a number", message({"content": 13})),
    Kind("tool calls that are a word", message({"content": "", "tool_calls": "none"})),
    Kind("a tool call without a function", message({"tool_calls": [{"index": 0, "function": 13}]})),
    # More than the settings allow.
    Kind(
        "an event that is too large",
        broken(huge("y" * ENVELOPE), reply({"choices": "y" * 4 * ENVELOPE})),
        named="max_",
    ),
    Kind(
        "a reply that is too large", huge("y" * 4 * ENVELOPE, pieces=40), begun=True, named="max_reply_bytes"
    ),
    Kind(
        "a reply that expands without end",
        huge("y" * ENVELOPE, gzipped=True, pieces=10),
        named="max_compression_ratio",
    ),
    Kind(
        "headers that are too large",
        lambda query: reply(b"{}", headers={"X-Pad": "y" * ENVELOPE}),
        named="max_header_bytes",
    ),
]


def streamed_as(rewrite: Callable[[bytes], bytes]) -> Fault:
    """Return the right reply, whose stream is written in another way."""

    def fault(query: Query) -> Wire:
        wire = query.says(RIGHT)
        if not query.streamed:
            return wire
        blocks = [query.body(query.choice(RIGHT)), query.body(query.choice(None, "stop"))]
        text = b"".join(b"data: " + json.dumps(block).encode() + b"\n\n" for block in blocks) + DONE
        return events([rewrite(text)], done=False)

    return fault


def in_single_bytes(query: Query) -> Wire:
    """Return the right reply; its stream comes byte by byte."""
    wire = query.says(RIGHT + " \u00e9")
    if not query.streamed:
        return wire
    blocks = [query.body(query.choice(RIGHT + " \u00e9")), query.body(query.choice(None, "stop"))]
    text = b"".join(b"data: " + json.dumps(b, ensure_ascii=False).encode() + b"\n\n" for b in blocks) + DONE
    return events([text[i : i + 1] for i in range(len(text))], done=False)


def whole_event(query: Query) -> Json:
    """Return one event with the whole right reply, as an unstreamed one has it."""
    message = {"role": "assistant", "content": RIGHT}
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(query.choices)]
    return query.body(*choices, object="chat.completion")


def right(change: Callable[[Json, Query], object]) -> Fault:
    """Return the right reply in an odd form."""
    return odd(change, RIGHT)


def every_choice(**fields: Any) -> Fault:
    """Return the right reply; every choice has these fields, or lacks those that are `...`."""

    def change(body: Json, _: Query) -> None:
        for choice in body["choices"]:
            choice.update(fields)
            for name in [name for name, value in fields.items() if value is ...]:
                del choice[name]

    return right(change)


def part_of_message(**fields: Any) -> Fault:
    """Return the right reply; every message, or every first delta, has these fields."""

    def change(body: Json, query: Query) -> None:
        for choice in body["choices"]:
            choice["delta" if query.streamed else "message"].update(fields)

    return right(change)


def usage(value: Any) -> Fault:
    """Return the right reply with this usage."""
    return right(lambda body, _: body.update(usage=value))


def parts(body: Json, query: Query) -> None:
    """Write the content of every choice as a list of parts."""
    for choice in body["choices"]:
        part = choice["delta" if query.streamed else "message"]
        part["content"] = [{"type": "text", "text": part["content"]}]


def hangs_after(end: bytes) -> Fault:
    """Return the right reply; its stream stays open after `end`."""

    def fault(query: Query) -> Wire:
        if not query.streamed:
            return query.says(RIGHT)
        steps = [query.body(query.choice(RIGHT)), query.body(query.choice(None, "stop")), end]
        return events(steps, then="silence")

    return fault


UNDERSTOOD: dict[str, Fault] = {
    "lines that end in CR LF": streamed_as(lambda text: text.replace(b"\n", b"\r\n")),
    "lines that end in CR": streamed_as(lambda text: text.replace(b"\n", b"\r")),
    "a byte order mark": streamed_as(lambda text: b"\xef\xbb\xbf" + text),
    "events without data": streamed_as(lambda text: text.replace(b"data: {", b"data:\n\ndata: \n\ndata: {")),
    "an empty error beside the choices": right(lambda body, _: body.update(error="")),
    "an error of empty values": right(lambda body, _: body.update(error={"message": "", "code": None})),
    "comments between the events": streamed_as(lambda text: text.replace(b"\n\n", b"\n\n: busy\n\n")),
    "no blank line between the events": streamed_as(lambda text: text.replace(b"\n\n", b"\n")),
    "a stream although nobody asked": lambda query: (
        query.says(RIGHT) if query.streamed else events([whole_event(query)])
    ),
    "a message in place of a delta": lambda query: (
        events([whole_event(query)]) if query.streamed else query.says(RIGHT)
    ),
    "the whole message again at the end": lambda query: (
        events([query.body(query.choice(RIGHT[:3])), query.body(query.choice(RIGHT[3:])), whole_event(query)])
        if query.streamed
        else query.says(RIGHT)
    ),
    "no blank after the colon": streamed_as(lambda text: text.replace(b"data: ", b"data:")),
    "single bytes": in_single_bytes,
    "the end told twice": streamed_as(lambda text: text + DONE),
    "text after the end": streamed_as(
        lambda text: text + b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    ),
    "no [DONE] after the last choice": streamed_as(lambda text: text.removesuffix(DONE)),
    "silence after [DONE]": hangs_after(DONE),
    "an index in digits": every_choice(index="0"),
    "an index that is null": every_choice(index=None),
    "no index": every_choice(index=...),
    "a role that is null": part_of_message(role=None),
    "content in parts": right(parts),
    "a finish reason without letters": lambda query: (
        query.says(RIGHT)
        if not query.streamed
        else events([query.body(query.choice(RIGHT, "")), query.body(query.choice(None, "stop"))])
    ),
    "another vendor's word for stop": lambda query: query.says(RIGHT, "end_turn"),
    "usage that is null": usage(None),
    "usage that is a word": usage("much"),
    "usage that is a list": usage([1]),
    "usage in digits": usage({"prompt_tokens": "5", "completion_tokens": "9"}),
    "usage in fractions": usage({"prompt_tokens": 1.5, "completion_tokens": 9.5}),
    "usage below zero": usage({"prompt_tokens": -5, "completion_tokens": -9, "total_tokens": -14}),
    "usage beyond belief": usage({"prompt_tokens": 10**18, "completion_tokens": 10**18}),
    "ids that are null": right(lambda body, _: body.update(id=None, model=None, created=None)),
    "a number that JSON lacks": right(lambda body, _: body.update(score=float("nan"))),
    "thinking that is a list of numbers": part_of_message(reasoning_content=[1, 3]),
    "tool calls that are null": part_of_message(tool_calls=[None]),
    "log probabilities that are a word": every_choice(logprobs="none"),
    "a number of many digits": right(lambda body, _: body.update(score=10**30)),
    "an empty list of tool calls": part_of_message(tool_calls=[]),
}


# The clients, one for each dialect.


@dataclass(frozen=True)
class Outcome:
    """What a client got."""

    status: int
    headers: httpx.Headers
    text: str
    answer: str
    error: Json | None
    complete: bool
    scaling: Json

    @property
    def samples(self) -> Json:
        """Return the counts of samples in the report."""
        return dict(self.scaling["samples"])

    @property
    def groups(self) -> list[str]:
        """Return the answers that had votes."""
        return [group["answer"] for group in self.scaling["vote"]["groups"]]


def events_in(text: str) -> list[Json]:
    """Return the events of a stream, without comments and `[DONE]`."""
    lines = [line for block in text.split("\n\n") for line in block.split("\n") if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


def chat_outcome(response: httpx.Response) -> Outcome:
    """Read a reply of `/v1/chat/completions`."""
    answer, failure, scaling, complete = "", None, {}, False
    if response.headers["content-type"].startswith("text/event-stream"):
        complete = response.text.endswith("data: [DONE]\n\n")
        for event in events_in(response.text):
            failure = failure if "choices" in event else event["error"]
            scaling = event.get("scaling") or scaling
            for choice in event.get("choices") or ():
                answer += choice["delta"].get("content") or ""
    else:
        body = response.json()
        failure, scaling = None if "choices" in body else body["error"], body.get("scaling")
        complete = failure is None
        answer = "" if failure else body["choices"][0]["message"]["content"]
    return Outcome(
        response.status_code, response.headers, response.text, answer, failure, complete, scaling or {}
    )


def responses_outcome(response: httpx.Response) -> Outcome:
    """Read a reply of `/v1/responses`."""
    body: Json = {}
    failure = None
    if response.headers["content-type"].startswith("text/event-stream"):
        for event in events_in(response.text):
            if event["type"] in ("response.completed", "response.failed", "response.incomplete"):
                body = event["response"]
            if event["type"] == "error":
                failure = event
    else:
        body = response.json()
    failure = failure or body.get("error")
    items = [item for item in body.get("output") or () if item["type"] == "message"]
    answer = "".join(part["text"] for item in items for part in item["content"])
    complete = body.get("status") == "completed"
    scaling = body.get("scaling") or {}
    return Outcome(response.status_code, response.headers, response.text, answer, failure, complete, scaling)


def messages_outcome(response: httpx.Response) -> Outcome:
    """Read a reply of `/v1/messages`."""
    answer, failure, scaling, complete = "", None, {}, False
    if response.headers["content-type"].startswith("text/event-stream"):
        for event in events_in(response.text):
            answer += event.get("delta", {}).get("text", "")
            failure = event["error"] if event["type"] == "error" else failure
            scaling = event.get("scaling") or scaling
            complete = complete or event["type"] == "message_stop"
    else:
        body = response.json()
        failure, scaling = body.get("error"), body.get("scaling")
        complete = failure is None
        answer = "".join(block.get("text", "") for block in body.get("content") or ())
    return Outcome(
        response.status_code, response.headers, response.text, answer, failure, complete, scaling or {}
    )


@dataclass(frozen=True)
class Dialect:
    """A wire format of clients: its path, the body of a request, and how to read replies."""

    path: str
    body: Callable[[str], Json]
    read: Callable[[httpx.Response], Outcome]


def _messages_body(question: str) -> Json:
    return {"model": "tiny", "max_tokens": 64, "messages": [{"role": "user", "content": question}]}


CHAT = Dialect(
    "/v1/chat/completions",
    lambda question: {"model": "tiny", "messages": [{"role": "user", "content": question}]},
    chat_outcome,
)
DIALECTS = {
    "chat": CHAT,
    "responses": Dialect(
        "/v1/responses", lambda question: {"model": "tiny", "input": question}, responses_outcome
    ),
    "messages": Dialect("/v1/messages", _messages_body, messages_outcome),
}
WAYS = [(dialect, stream) for dialect in DIALECTS.values() for stream in (False, True)]


@dataclass
class Bench:
    """A gateway, and the engine behind it."""

    engine: FaultyEngine
    client: httpx.AsyncClient
    words: itertools.count[int] = field(default_factory=itertools.count)

    def script(self, fault: Fault, hits: int = 1_000) -> str:
        """Let the engine meet a conversation so; return the word that belongs into its question."""
        word = f"conversation-{next(self.words)}-"
        self.engine.meets(word, fault, hits)
        return word

    async def ask(self, word: str, dialect: Dialect, stream: bool, headers: dict[str, str]) -> Outcome:
        """Send one request of a conversation."""
        body = {**dialect.body(f"{word} What is six times seven?"), "stream": stream}
        return dialect.read(await self.client.post(dialect.path, json=body, headers=headers))

    async def alone(self, fault: Fault, dialect: Dialect, stream: bool) -> Outcome:
        """Ask for one sample, which meets the fault."""
        return await self.ask(self.script(fault), dialect, stream, {})

    async def vote(
        self, fault: Fault, way: tuple[Dialect, bool], stop: str, *, hits: int = 1_000, apart: bool = False
    ) -> tuple[Outcome, int]:
        """Ask for a vote of six whose first `hits` upstream requests meet the fault; return their number.

        `apart`: a budget has each sample ask for itself under any stopping rule.
        """
        word = self.script(fault, hits)
        headers = {"X-Samples": "6", "X-Stop": stop, **({"X-Reasoning-Budget": "500"} if apart else {})}
        outcome = await self.ask(word, *way, headers)
        return outcome, self.engine.requests(word)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    """Serve one gateway, which waits `IDLE` seconds, for all tests: a fault must not harm what follows."""
    async with faulty_engine() as engine:
        settings = Settings(
            upstream=HttpUrl(engine.base_url),
            upstream_key=SecretStr(KEY),
            idle_timeout=20 * IDLE,
            max_event_bytes=ENVELOPE // 2,
            max_reply_bytes=2 * ENVELOPE,
            max_header_bytes=ENVELOPE // 2,
        )
        async with (
            serving(create_app(settings)) as url,
            httpx.AsyncClient(base_url=url, timeout=10) as client,
        ):
            yield Bench(engine, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(bench: Bench) -> AsyncIterator[Bench]:
    """Serve a gateway that gives up after `IDLE` seconds of silence, before the same engine."""
    settings = Settings(
        upstream=HttpUrl(bench.engine.base_url),
        upstream_key=SecretStr(KEY),
        idle_timeout=IDLE,
        first_token_timeout=IDLE,
    )
    async with serving(create_app(settings)) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        yield Bench(bench.engine, client, bench.words)


def kinds(*numbers: int) -> Any:
    """Parametrize a test with every kind of fault and one of the six ways to ask, in turn."""
    cases = [
        pytest.param(kind, *WAYS[(position + offset) % len(WAYS)], id=kind.name.replace(" ", "-"))
        for position, kind in enumerate(LOST)
        for offset in numbers
    ]
    return pytest.mark.parametrize(("kind", "dialect", "stream"), cases)


@pytest.fixture
def served(kind: Kind, bench: Bench, impatient: Bench) -> Bench:
    """Return the gateway that suits the kind."""
    return impatient if kind.quiet else bench


@pytest.mark.parametrize("kind", LOST, ids=lambda kind: kind.name.replace(" ", "-"))
async def test_one_sample_alone_is_an_error(kind: Kind, served: Bench) -> None:
    """Neither a success nor a lost connection: the kind's status, or an error event and no end of success."""
    outcomes = await asyncio.gather(*(served.alone(kind.fault, *way) for way in WAYS))
    for (dialect, stream), outcome in zip(WAYS, outcomes, strict=True):
        way = f"{dialect.path} {'streamed' if stream else 'whole'}: {outcome.text[-400:]}"
        assert outcome.status == (200 if stream and kind.begun else kind.status), way
        assert outcome.error is not None, way
        assert not outcome.complete, way
        assert kind.named in outcome.error["message"] or (kind.begun and not stream), way
        assert KEY not in outcome.text, way
        assert "x-request-id" in outcome.headers, way
        if not (stream and kind.begun):
            assert outcome.headers.items() >= kind.headers.items(), way
        if kind.code is not None:
            assert outcome.error.get("code") == kind.code, way


@kinds(0)
async def test_a_vote_draws_a_lost_sample_again(
    kind: Kind, served: Bench, dialect: Dialect, stream: bool
) -> None:
    """One lost sample of six costs one more request; six samples vote, and the lost one counts as failed."""
    outcome, requests = await served.vote(kind.fault, (dialect, stream), "none", hits=1, apart=True)
    assert_right(outcome)
    again = kind.again
    assert (outcome.samples["failed"], outcome.samples["finished"]) == (1, 6 if again else 5)
    assert outcome.samples["launched"] == requests == (7 if again else 6)


@kinds(1)
async def test_a_vote_survives_half_of_its_samples(
    kind: Kind, served: Bench, dialect: Dialect, stream: bool
) -> None:
    """Three lost samples of six cost at most three more requests, and have no vote."""
    outcome, requests = await served.vote(kind.fault, (dialect, stream), "adaptive", hits=3)
    assert_right(outcome)
    assert outcome.samples["failed"] == 3
    assert requests <= 9


@kinds(2)
async def test_a_vote_whose_samples_share_a_request_survives_its_loss(
    kind: Kind, served: Bench, dialect: Dialect, stream: bool
) -> None:
    """Where one upstream request carried all samples, all of them are drawn again."""
    if not kind.again:
        pytest.skip("such a refusal is final")
    outcome, requests = await served.vote(kind.fault, (dialect, stream), "none", hits=1)
    assert_right(outcome)
    assert requests > 1
    assert outcome.samples["finished"] == 6
    assert outcome.samples["failed"] <= 6  # choices that were never begun are only asked for anew
    assert outcome.samples["launched"] == 6 + outcome.samples["failed"]


@kinds(3)
async def test_a_vote_that_loses_every_sample_is_an_error(
    kind: Kind, served: Bench, dialect: Dialect, stream: bool
) -> None:
    """The error has the kind's status, and every sample was drawn at most twice."""
    outcome, requests = await served.vote(kind.fault, (dialect, stream), "none", apart=True)
    assert outcome.status == kind.status, outcome.text
    assert outcome.error is not None
    assert not outcome.complete
    assert KEY not in outcome.text
    assert outcome.headers.items() >= kind.headers.items()
    assert requests <= 12


def assert_right(outcome: Outcome) -> None:
    """Check that a vote came to the right answer, and that nothing else had a vote."""
    assert outcome.status == 200, outcome.text
    assert outcome.error is None
    assert outcome.complete
    assert outcome.answer == RIGHT
    assert outcome.groups == ["42"]
    assert KEY not in outcome.text


@pytest.mark.parametrize("fault", UNDERSTOOD.values(), ids=[name.replace(" ", "-") for name in UNDERSTOOD])
async def test_an_odd_reply_is_understood(fault: Fault, bench: Bench) -> None:
    """One sample alone comes back as it is, in every dialect, and in a vote none fails."""
    outcomes = await asyncio.gather(*(bench.alone(fault, *way) for way in WAYS))
    for (dialect, stream), outcome in zip(WAYS, outcomes, strict=True):
        way = f"{dialect.path} {'streamed' if stream else 'whole'}: {outcome.text[-400:]}"
        assert (outcome.status, outcome.complete) == (200, True), way
        assert outcome.answer.startswith(RIGHT), way
    outcome, _ = await bench.vote(fault, (CHAT, False), "none", apart=True)
    assert (outcome.samples["finished"], outcome.samples["failed"]) == (6, 0)
    assert outcome.groups == ["42"]


# What concerns more than one sample.


def one_choice(finish: str | None) -> Fault:
    """Return a reply whose last choice ends in this way, and whose others are right."""

    def fault(query: Query) -> Wire:
        last = query.choices - 1
        texts = [(RIGHT, "stop")] * last + [(WRONG, finish)]
        if not query.streamed:
            return reply(query.body(*(query.choice(*text, index) for index, text in enumerate(texts))))
        pieces = [query.body(query.choice(text, None, index)) for index, (text, _) in enumerate(texts)]
        pieces += [query.body(query.choice(None, finish, index)) for index, (_, finish) in enumerate(texts)]
        return events(pieces)

    return fault


@pytest.mark.parametrize(("dialect", "stream"), WAYS)
async def test_a_lost_choice_costs_one_sample_of_its_request(
    bench: Bench, dialect: Dialect, stream: bool
) -> None:
    """The other five choices keep their votes, and one more sample is drawn."""
    outcome, requests = await bench.vote(one_choice("abort"), (dialect, stream), "none", hits=1)
    assert_right(outcome)
    samples = outcome.samples
    assert (samples["launched"], samples["finished"], samples["failed"], requests) == (7, 6, 1, 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_without_a_vote_come_back_as_far_as_they_finished(bench: Bench, stream: bool) -> None:
    """Of `n` choices the finished ones come back with a note, and it is an error only if all failed."""
    word = bench.script(one_choice("abort"))
    body = {**CHAT.body(word), "n": 3, "stream": stream}
    some = CHAT.read(await bench.client.post(CHAT.path, json=body))
    assert (some.status, some.error, some.complete) == (200, None, True)
    assert some.text.count("42") >= 2
    assert some.samples["failed"] == 1
    assert some.scaling["notes"]
    body = {**CHAT.body(bench.script(ends("abort"))), "n": 3, "stream": stream}
    none = CHAT.read(await bench.client.post(CHAT.path, json=body))
    assert none.error is not None
    assert not none.complete


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("dialect", "stream"), WAYS)
async def test_a_redirect_is_not_followed(bench: Bench, status: int, dialect: Dialect, stream: bool) -> None:
    """The prompt and the key go to no other host; the client gets a 502."""
    async with faulty_engine() as other:
        elsewhere = {"Location": f"{other.base_url}/chat/completions"}
        fault: Fault = lambda query: reply(b"", status, elsewhere)  # noqa: E731
        word = bench.script(fault)
        other.meets(word, ends("stop"))
        outcome = await bench.ask(word, dialect, stream, {})
        assert (outcome.status, outcome.complete) == (502, False)
        assert (other.requests(word), other.others, bench.engine.requests(word)) == (0, 0, 1)


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_reached_the_engine_is_not_sent_again(
    bench: Bench, then: Literal["close", "reset"], stream: bool
) -> None:
    """The engine had the whole request when the connection died, so it may have begun to generate."""
    for _ in range(3):  # on new connections, and on one that has carried a request before
        assert (await bench.alone(lambda query: query.says(RIGHT), CHAT, False)).answer == RIGHT
        word = bench.script(raw(b"", then))
        assert (await bench.ask(word, CHAT, stream, {})).status == 502
        assert bench.engine.requests(word) == 1


async def test_a_fault_harms_no_other_request(bench: Bench) -> None:
    """Good requests among others that fail get their answers."""
    ways = itertools.cycle(WAYS)
    faults = [bench.alone(kind.fault, *next(ways)) for kind in LOST if not kind.quiet]
    good = [bench.alone(lambda query: query.says(RIGHT), *next(ways)) for _ in faults]
    outcomes = await asyncio.gather(*itertools.chain.from_iterable(zip(faults, good, strict=True)))
    assert [outcome.answer for outcome in outcomes[1::2]] == [RIGHT] * len(good)


@pytest.mark.parametrize(("dialect", "stream"), WAYS)
async def test_the_upstreams_key_is_blacked_out_wherever_it_stands(
    bench: Bench, dialect: Dialect, stream: bool
) -> None:
    """An engine that repeats its request's headers in text, fields or headers gives nothing away."""

    def fault(query: Query) -> Wire:
        text = f"{RIGHT} Authorization: Bearer {query.key}"
        fields = {"system_fingerprint": query.key, "debug": {"headers": [f"Bearer {query.key}"]}}
        if not query.streamed:
            headers = {"X-RateLimit-Key": query.key}
            return reply(query.body(query.choice(text, "stop"), **fields), headers=headers)
        steps = [query.body(query.choice(text), **fields), query.body(query.choice(None, "stop"))]
        return events(steps)

    outcome = await bench.alone(fault, dialect, stream)
    assert (outcome.status, outcome.complete) == (200, True)
    assert outcome.answer.startswith(RIGHT)
    assert KEY not in outcome.text
    assert KEY not in str(outcome.headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_rate_limits_of_a_success_are_passed_on(bench: Bench, stream: bool) -> None:
    """The client sees how many requests are left, before one is refused."""

    def fault(query: Query) -> Wire:
        wire = query.says(RIGHT)
        return Wire(wire.payload.replace(b"\r\n", b"\r\nX-RateLimit-Remaining-Requests: 9\r\n", 1))

    outcome = await bench.alone(fault, CHAT, stream)
    assert outcome.status == 200
    if not stream:
        assert outcome.headers["x-ratelimit-remaining-requests"] == "9"


# /v1/completions, which passes everything on, has the same care.

TEXT = "/v1/completions"
RELAYED = [kind for kind in LOST if kind.name in {
    "an error with its own status",
    "too many requests",
    "overloaded",
    "a request that the engine can't take",
    "the gateway's key is refused",
    "an odd status",
    "a status that is no answer",
    "a proxy's error page",
    "the connection ends before the reply",
    "the connection is reset before the reply",
    "the engine ends the connection in mid-reply",
    "the engine dies in mid-reply",
    "no HTTP at all",
    "an engine that says nothing",
    "an engine that falls silent",
    "an engine that sends only comments",
    "a reply that expands without end",
    "headers that are too large",
}]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", RELAYED, ids=lambda kind: kind.name.replace(" ", "-"))
async def test_completions_report_the_fault(kind: Kind, served: Bench, stream: bool) -> None:
    """A text completion that fails has the same status, headers and silence about the key as a chat."""
    word = served.script(kind.fault)
    body = {"model": "tiny", "prompt": word, "stream": stream}
    response = await served.client.post(TEXT, json=body)
    begun = stream and kind.begun
    assert response.status_code == (200 if begun else kind.status), response.text
    assert KEY not in response.text
    assert "[DONE]" not in response.text
    if begun:
        assert "error" in events_in(response.text)[-1]
    else:
        assert kind.named in response.json()["error"]["message"] or kind.begun
        assert response.headers.items() >= kind.headers.items()


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_follow_no_redirect(bench: Bench, stream: bool) -> None:
    """The prompt goes to no other host."""
    async with faulty_engine() as other:
        word = bench.script(lambda query: reply(b"", 307, {"Location": f"{other.base_url}/completions"}))
        response = await bench.client.post(TEXT, json={"model": "tiny", "prompt": word, "stream": stream})
        assert response.status_code == 502
        assert other.others == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_black_out_the_upstreams_key(bench: Bench, stream: bool) -> None:
    """Also where the engine repeats it in a text."""
    word = bench.script(lambda query: query.says(f"Bearer {query.key}."))
    response = await bench.client.post(TEXT, json={"model": "tiny", "prompt": word, "stream": stream})
    assert response.status_code == 200
    assert KEY not in response.text
