"""A request that asks for nothing: the gateway compared with a bare proxy.

The upstream gets the client's body, and the client gets the engine's reply. `EXCEPTIONS` lists every
difference that is allowed, as functions: each takes one kind of difference out of both replies. `CASES` holds
a reply for each of them that differs without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings
from tests.faulty_engine import Fault, FaultyEngine, Query, Wire, events, faulty_engine, reply
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
MODELS = ("tiny-WORD", "qwen3.5-9b-WORD", "deepseek-v4-flash-WORD", "gpt-oss-20b-WORD")
"""Names of models. The gateway learns what an engine does for a model, so each exchange has its own."""
OPENED = ("qwen3.5-9b", "deepseek-v4-flash")
"""The beginnings of names whose family has a template that opens the thinking."""
COUNTS = {"prompt_tokens", "completion_tokens", "total_tokens"}
CHAT = "/v1/chat/completions"
EXAMPLES = settings(max_examples=80)


# The exceptions. `Reply` is a list of JSON objects: the events of a stream, or the one body.

Reply = list[Json]


def scaling_is_added(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """The gateway adds its report."""
    return engine, [{key: value for key, value in part.items() if key != "scaling"} for part in gateway]


def thinking_has_both_names(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Thinking comes as `reasoning` and as `reasoning_content`, because clients differ."""
    for message in messages(engine):
        if text := message.get("reasoning_content") or message.get("reasoning"):
            message["reasoning"] = message["reasoning_content"] = text
    return engine, gateway


def a_closed_block_is_split_off(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """A `<think>` block that was closed in the text is thinking; what may be a tag comes an event later."""
    for index in {choice["index"] for choice in choices(engine)}:
        text = "".join(
            text for part in messages(engine, index) if isinstance(text := part.get("content"), str)
        )
        if "<" not in text:
            continue
        match = re.fullmatch(r"\s*<think>(.*?)</think>(.*)", text, re.DOTALL)
        thinking, answer = (match[1].strip(), match[2]) if match else ("", text)
        take_texts(engine, index)
        engine.append({"texts": index, "content": answer.strip(), "reasoning": thinking})
        gateway.append({"texts": index, **take_texts(gateway, index)})
    return without_empty(engine), without_empty(gateway)


def an_open_block_streams_as_thinking(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Behind a template that opens the block, streamed text counts as thinking until a tag ends it.

    Where no tag has ended it, the stream then gives all of it as content too.
    """
    if not request["model"].startswith(OPENED):
        return engine, gateway
    for index in {choice.get("index") for choice in choices(engine)}:
        streamed = any("delta" in choice for choice in choices(engine, index))
        text = "".join(
            text for part in messages(engine, index) if isinstance(text := part.get("content"), str)
        )
        shown = "".join(map(thinking_in, messages(gateway, index)))
        thought = "".join(map(thinking_in, messages(engine, index)))
        if not text.strip() or shown == thought or not streamed:
            continue
        expected, own = take_texts(engine, index), take_texts(gateway, index)
        assert own["reasoning"] == f"{expected['reasoning']}{expected['content']}".strip()
        assert own["content"] == expected["content"]
    return without_empty(engine), without_empty(gateway)


def an_index_is_a_number(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Choices and streamed tool calls whose index is missing, null, in digits or shared get their own.

    A new id is a new call.
    """
    for part in engine:
        for position, choice in enumerate(part.get("choices") or ()):
            index = choice.get("index")
            choice["index"] = position if index is None else int(index)
    for number in {choice["index"] for choice in choices(engine)}:
        places: dict[str, int] = {}
        for message in messages(engine, number):
            for call in (message.get("tool_calls") or ()) if "role" not in message else ():
                if call.get("id"):
                    call["index"] = places.setdefault(call["id"], len(places))
    return engine, gateway


def a_tool_call_has_an_id_and_one_name(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """An empty id or name counts as absent, a call without an id gets one, and no name is repeated."""
    for message in messages(engine):
        for call in message.get("tool_calls") or ():
            for part in (call, call.get("function") or {}):
                for name in ("id", "name"):
                    if part.get(name) == "":
                        del part[name]
    for index in {choice["index"] for choice in choices(engine)}:
        named: set[Any] = set()
        for message in messages(engine, index):
            for call in (message.get("tool_calls") or ()) if "role" not in message else ():
                if call.get("index") in named:
                    call["function"].pop("name", None)
                named.add(call.get("index"))
    for message in messages(gateway):
        for call in message.get("tool_calls") or ():
            if re.fullmatch("call_[0-9a-f]{32}", call.get("id", "")):
                del call["id"]
    return engine, gateway


def an_ending_has_openais_word(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Finish reasons of other vendors become OpenAI's."""
    words = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "STOP": "stop"}
    words |= {"tool_use": "tool_calls", "max_tokens": "length", "MAX_TOKENS": "length"}
    words |= {"model_length": "length"}
    for choice in choices(engine):
        if isinstance(choice.get("finish_reason"), str):
            choice["finish_reason"] = words.get(choice["finish_reason"], choice["finish_reason"])
    return engine, gateway


def content_is_a_text(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Content that is a list of parts, as Mistral sends it, becomes thinking and text."""
    for message in messages(engine):
        if not isinstance(parts := message.get("content"), list):
            continue
        message["content"] = "".join(part["text"] for part in parts if part["type"] == "text")
        inner = [piece["text"] for part in parts if part["type"] == "thinking" for piece in part["thinking"]]
        if inner:
            message["reasoning"] = message["reasoning_content"] = "".join(inner)
    return engine, gateway


def usage_is_believable(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Counts that can't be true are left out of the usage, and so is usage that is no object."""
    for part in engine:
        usage = part.get("usage")
        if isinstance(usage, dict):
            part["usage"] = {name: value for name, value in usage.items() if name not in COUNTS or value >= 0}
        elif usage is not None:
            del part["usage"]
    return engine, gateway


def an_answer_filed_as_thinking_is_the_answer(
    request: Json, engine: Reply, gateway: Reply
) -> tuple[Reply, Reply]:
    """With thinking switched off, reasoning without any content is the content."""
    switch = (request.get("chat_template_kwargs") or {}).get("enable_thinking")
    contents = [message.get("content") for message in messages(engine)]
    if (
        switch is not False
        or any(contents)
        or not any(message.get("reasoning") for message in messages(engine))
    ):
        return engine, gateway
    for message in messages(engine):
        text = message.pop("reasoning", None)
        message.pop("reasoning_content", None)
        if text:
            message["content"] = text
    return engine, gateway


def nothing_follows_the_end(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """Text that comes after a choice's finish reason is left out."""
    ended: set[Any] = set()
    for part in engine:
        late = [choice for choice in part.get("choices") or () if choice.get("index") in ended]
        if late:
            part["choices"] = [choice for choice in part["choices"] if choice not in late]
        ended |= {c.get("index") for c in part.get("choices") or () if c.get("finish_reason")}
    return [part for part in engine if part.get("choices") or part.get("usage")], gateway


def a_failure_is_an_error(request: Json, engine: Reply, gateway: Reply) -> tuple[Reply, Reply]:
    """A choice that the engine has aborted is an error, and not a reply."""
    if any(choice.get("finish_reason") == "abort" for choice in choices(engine)):
        assert "error" in gateway[-1]
        return [], []
    return engine, gateway


Difference = Callable[[Json, Reply, Reply], tuple[Reply, Reply]]
ALWAYS: tuple[Difference, ...] = (
    an_index_is_a_number,
    a_tool_call_has_an_id_and_one_name,
    an_ending_has_openais_word,
    nothing_follows_the_end,
    content_is_a_text,
    usage_is_believable,
    a_closed_block_is_split_off,
    an_open_block_streams_as_thinking,
    an_answer_filed_as_thinking_is_the_answer,
    a_failure_is_an_error,
)
"""The exceptions that hold with `plain_replies` too."""
EXCEPTIONS: tuple[Difference, ...] = (scaling_is_added, *ALWAYS, thinking_has_both_names)


def choices(parts: Reply, index: object = ...) -> Iterator[Json]:
    """Yield all choices of a reply, or those with this index."""
    for part in parts:
        for choice in part.get("choices") or ():
            if index is ... or choice.get("index") == index:
                yield choice


def messages(parts: Reply, index: object = ...) -> Iterator[Json]:
    """Yield the message or delta of all choices of a reply, or of those with this index."""
    for choice in choices(parts, index):
        yield choice["delta"] if "delta" in choice else choice["message"]


def thinking_in(message: Json) -> str:
    """Return the thinking of a message, under whichever name."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


def take_texts(parts: Reply, index: object) -> Json:
    """Take the texts out of a choice's messages or deltas, and return them whole."""
    content = reasoning = ""
    for message in messages(parts, index):
        reasoning += thinking_in(message)
        content += message.get("content") or ""
        for name in ("content", "reasoning", "reasoning_content"):
            message.pop(name, None)
    return {"content": content.strip(), "reasoning": reasoning.strip()}


def without_empty(parts: Reply) -> Reply:
    """Return a reply without the events that say nothing any more."""
    return [part for part in parts if "texts" in part or not says_nothing(part)]


def says_nothing(part: Json) -> bool:
    """Tell whether an event holds nothing but its head and a choice without text."""
    plain = {"index", "delta", "finish_reason", "logprobs"}
    return bool(part.get("choices")) and all(
        not choice.get("delta", {"role": 1}).keys() - {"role"}
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        and choice.keys() <= plain
        for choice in part["choices"]
    )


def compare(
    request: Json, engine: Reply, gateway: Reply, exceptions: Sequence[Difference]
) -> tuple[Reply, Reply]:
    """Take all allowed differences out of two replies to a request."""
    engine, gateway = deepcopy(engine), deepcopy(gateway)
    for exception in exceptions:
        engine, gateway = exception(request, engine, gateway)
    return engine, gateway


# The gateways and the engine.


class Proxy:
    """A gateway, and the engine behind it."""

    def __init__(self, engine: FaultyEngine, client: httpx.AsyncClient, words: Iterator[int]) -> None:
        self.words = words
        self._engine = engine
        self._client = client

    async def exchange(
        self, body: Json, answer: Reply, path: str = CHAT, cuts: Sequence[int] = ()
    ) -> Exchange:
        """Send one request, which the engine answers so."""
        word = f"conversation-{next(self.words)}-"
        self._engine.meets(word, engine_reply(answer, cuts))
        body = json.loads(json.dumps(body).replace("WORD", word))
        response = await self._client.post(path, content=json.dumps(body))
        return Exchange(body, [json.loads(payload) for payload in self._engine.payloads(word)], response)


@dataclass
class Exchange:
    """One request of a client: its body, the bodies that went upstream, and the response."""

    body: Json
    upstream: list[Json]
    response: httpx.Response

    @property
    def reply(self) -> Reply:
        """Return the events of the response, or its one body."""
        if not self.response.headers["content-type"].startswith("text/event-stream"):
            return [self.response.json()]
        lines = [line for line in self.response.text.split("\n") if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]


def engine_reply(answer: Reply, cuts: Sequence[int]) -> Fault:
    """Return a reply with this body, or with these events; its bytes come in pieces."""

    def fault(query: Query) -> Wire:
        wire = events(answer) if query.streamed else reply(answer[0])
        return Wire(wire.payload, cuts=[cut % len(wire.payload) for cut in cuts])

    return fault


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[FaultyEngine]:
    """Run an engine that lists one model, and serves any."""
    async with faulty_engine() as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(engine: FaultyEngine) -> AsyncIterator[Proxy]:
    """Serve a gateway with default settings."""
    settings = Settings(upstream=HttpUrl(engine.base_url))
    async with serving(create_app(settings)) as url, httpx.AsyncClient(base_url=url) as client:
        yield Proxy(engine, client, count())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain_proxy(engine: FaultyEngine, proxy: Proxy) -> AsyncIterator[Proxy]:
    """Serve a gateway with `plain_replies`."""
    settings = Settings(upstream=HttpUrl(engine.base_url), plain_replies=True)
    async with serving(create_app(settings)) as url, httpx.AsyncClient(base_url=url) as client:
        yield Proxy(engine, client, proxy.words)


# Random requests and replies.

texts = st.text(
    st.characters(codec="utf-8", exclude_characters="<`[", exclude_categories=["Cc"]), max_size=20
)
some_text = texts.filter(bool)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
unknown_fields = st.dictionaries(st.sampled_from(["x_one", "x_two", "provider", "nvext"]), values, max_size=2)


def some_of(optional: Mapping[str, st.SearchStrategy[Any]], **required: Any) -> st.SearchStrategy[Json]:
    """Return objects with the required fields and some of the optional ones."""
    return st.fixed_dictionaries(
        {
            name: value if isinstance(value, st.SearchStrategy) else st.just(value)
            for name, value in required.items()
        },
        optional=dict(optional),
    )


details = st.lists(
    st.fixed_dictionaries({"type": st.just("reasoning.text"), "text": texts, "index": st.integers(0, 2)}),
    max_size=2,
)
thinking_fields = {
    "reasoning": texts,
    "reasoning_content": texts,
    "reasoning_details": details,
    "thinking": texts,
    "thinking_blocks": st.lists(values, max_size=1),
    "reasoning_signature": texts,
}
functions = st.fixed_dictionaries({"name": st.sampled_from(["read", "write"]), "arguments": texts})
calls = st.lists(
    st.fixed_dictionaries({"id": some_text, "type": st.just("function"), "function": functions}),
    max_size=2,
    unique_by=lambda call: call["id"],  # a call that repeats another is left out
)
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), min_size=1, max_size=2)
history = st.lists(
    some_of({"name": some_text}, role="user", content=texts | parts)
    | some_of({**thinking_fields, "tool_calls": calls}, role="assistant", content=texts | parts | st.none())
    | some_of({}, role="tool", tool_call_id=some_text, content=texts)
    | some_of({}, role=st.sampled_from(["system", "developer"]), content=texts),
    max_size=4,
)
tools = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("function"), "function": st.fixed_dictionaries({"name": some_text})}
    ),
    min_size=1,
    max_size=2,
)
request_fields: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0.1, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, 50),
    "seed": st.integers(0, 2**31),
    "max_tokens": st.integers(1, 4096),
    "max_completion_tokens": st.integers(1, 4096),
    "stop": texts | st.lists(texts, max_size=2),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 5),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    "tools": tools,
    "tool_choice": st.sampled_from(["auto", "none"]),
    "parallel_tool_calls": st.booleans(),
    "user": texts,
    "metadata": st.dictionaries(texts, texts, max_size=1),
    "chat_template_kwargs": st.sampled_from([{"preserve_thinking": True}, {"custom": 1}, {}]),
    "thinking": st.sampled_from([{"type": "adaptive"}, {"clear_thinking": False}, None]),
    "reasoning": st.sampled_from([{"summary": "auto"}, {}, None]),
    "reasoning_effort": st.none(),
    "preserve_thinking": st.booleans(),
    "clear_thinking": st.booleans(),
    "cache_salt": texts,
}


@st.composite
def requests(draw: st.DrawFn, *, stream: bool, choices: int) -> Json:
    """Draw a chat request that asks for nothing."""
    body = draw(some_of(request_fields, model=st.sampled_from(MODELS)))
    body |= draw(unknown_fields)
    body["messages"] = [*draw(history), {"role": "user", "content": "WORD"}]
    if stream:
        body["stream"] = True
        options = st.sampled_from([None, {}, {"include_usage": True}, {"include_usage": False, "x": 1}])
        if draw(st.booleans()):
            body["stream_options"] = draw(options)
    elif draw(st.booleans()):
        body["stream"] = draw(st.sampled_from([False, None]))
    if choices > 1 or draw(st.booleans()):
        body["n"] = choices
    return body


counts = st.integers(0, 10_000)
usages = some_of(
    {
        "prompt_tokens_details": some_of({"cached_tokens": counts}) | st.none(),
        "cost": st.floats(0, 1),
        "x": values,
    },
    prompt_tokens=counts,
    completion_tokens=counts,
    total_tokens=counts,
)
heads = some_of(
    {"system_fingerprint": texts | st.none(), "service_tier": texts, "prompt_logprobs": st.none()},
    id=some_text,
    created=st.integers(0, 2**40),
    model=some_text,
)
endings = st.sampled_from(["stop", "length", "tool_calls"])
logprobs = st.none() | st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9, 0)}), max_size=2)}
)


@st.composite
def whole_replies(draw: st.DrawFn, choices: int) -> Reply:
    """Draw an unstreamed reply."""
    optional = {
        **thinking_fields,
        "refusal": st.none(),
        "annotations": st.lists(unknown_fields, max_size=1),
        "x": values,
    }
    body = draw(heads) | draw(unknown_fields) | {"object": "chat.completion", "choices": []}
    for index in range(choices):
        message = draw(
            some_of({**optional, "tool_calls": calls}, role="assistant", content=texts | st.none())
        )
        fields = draw(some_of({"logprobs": logprobs, "stop_reason": st.none() | texts, "x": values}))
        body["choices"].append({"index": index, "message": message, "finish_reason": draw(endings), **fields})
    if draw(st.booleans()):
        body["usage"] = draw(usages)
    return [body]


@st.composite
def streamed_replies(draw: st.DrawFn, choices: int) -> Reply:
    """Draw the events of a streamed reply."""
    head = draw(heads) | draw(unknown_fields) | {"object": "chat.completion.chunk"}
    running = draw(st.booleans())  # usage with every event, as vLLM sends it on request
    events: Reply = []

    def add(entries: list[Json]) -> None:
        usage = {"usage": draw(usages | st.none())} if running else {}
        events.append({**head, "choices": entries, **usage})

    def entry(index: int, delta: Json, finish: str | None = None) -> Json:
        fields = draw(some_of({"logprobs": logprobs, "x": values}))
        return {"index": index, "delta": delta, "finish_reason": finish, **fields}

    if draw(st.booleans()):
        for index in range(choices):
            add([entry(index, {"role": "assistant", "content": draw(st.just("") | st.none())})])
    called: dict[int, int] = {}
    answered: set[int] = set()
    for _ in range(draw(st.integers(0, 6))):
        chosen = draw(st.lists(st.integers(0, choices - 1), min_size=1, max_size=choices, unique=True))
        add([entry(index, draw(deltas(called, answered, index))) for index in chosen])
    for index in range(choices):
        add(
            [
                entry(
                    index,
                    draw(st.just({}) | st.just({"content": ""}) | deltas(called, answered, index)),
                    draw(endings),
                )
            ]
        )
    if draw(st.booleans()):
        events.append({**head, "choices": [], "usage": draw(usages)})
    return events


@st.composite
def deltas(draw: st.DrawFn, called: dict[int, int], answered: set[int], index: int) -> Json:
    """Draw a piece of a choice: text, thinking before it, a part of a tool call, or a vendor's field."""
    kind = draw(st.sampled_from(["text", "thinking", "call", "arguments", "vendor"]))
    if kind == "thinking" and index not in answered:
        return draw(some_of(thinking_fields))
    if kind == "call":
        place = called[index] = called.get(index, -1) + 1
        function = {"name": "read", "arguments": ""}
        call = {"index": place, "id": f"call-{index}-{place}", "type": "function", "function": function}
        return {"tool_calls": [call]}
    if kind == "arguments" and index in called:
        return {"tool_calls": [{"index": called[index], "function": {"arguments": draw(texts)}}]}
    answered.add(index)
    if kind == "vendor":
        return draw(some_of({"refusal": st.none(), "x": values, "content": texts}))
    return {"content": draw(texts)}


exchanges = st.booleans().flatmap(
    lambda stream: st.integers(1, 3).flatmap(
        lambda choices: st.tuples(
            requests(stream=stream, choices=choices),
            streamed_replies(choices) if stream else whole_replies(choices),
            st.lists(st.integers(0, 2**16), max_size=5),
        )
    )
)


async def check(
    proxy: Proxy, case: tuple[Json, Reply, Sequence[int]], exceptions: Sequence[Difference]
) -> None:
    """Compare the gateway with a bare proxy in one exchange."""
    body, answer, cuts = case
    exchange = await proxy.exchange(body, answer, cuts=cuts)
    assert exchange.upstream == [exchange.body]
    assert exchange.response.status_code == 200, exchange.response.text
    engine, gateway = compare(exchange.body, answer, exchange.reply, exceptions)
    assert gateway == engine


@EXAMPLES
@given(exchanges)
async def test_a_request_that_asks_for_nothing_passes_both_ways(
    proxy: Proxy, case: tuple[Json, Reply, Sequence[int]]
) -> None:
    """The upstream gets the client's body and nothing else; the client gets the engine's reply."""
    await check(proxy, case, EXCEPTIONS)


@EXAMPLES
@given(exchanges)
async def test_plain_replies_leave_out_what_the_gateway_adds(
    plain_proxy: Proxy, case: tuple[Json, Reply, Sequence[int]]
) -> None:
    """With `plain_replies` neither the report nor a second name of the thinking is added."""
    await check(plain_proxy, case, ALWAYS)


@pytest.mark.parametrize("stream", [False, True])
async def test_plain_replies_have_no_headers_of_the_gateway(plain_proxy: Proxy, stream: bool) -> None:
    """Only the request's id is there, which an operator needs."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "WORD"}], "stream": stream}
    exchange = await plain_proxy.exchange(body, said("Hello", stream=stream))
    names = {name for name in exchange.response.headers if name.startswith("x-")}
    assert names <= {"x-request-id", "x-accel-buffering"}
    assert "x-request-id" in names


# A case for each exception, which differs without it.


def said(
    content: Any, *, stream: bool = False, finish: Any = "stop", index: Any = 0, **message: Any
) -> Reply:
    """Return a reply with this message."""
    head = {"id": "1", "created": 1, "model": "tiny"}
    if not stream:
        choice = {
            "index": index,
            "message": {"role": "assistant", "content": content, **message},
            "finish_reason": finish,
        }
        return [{**head, "object": "chat.completion", "choices": [choice]}]
    pieces = [({"role": "assistant", "content": content, **message}, None), ({}, finish)]
    return [
        {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": index, "delta": delta, "finish_reason": end}],
        }
        for delta, end in pieces
    ]


def called(*entries: Json) -> Reply:
    """Return a stream with these fragments of tool calls, one an event."""
    head = {"id": "1", "created": 1, "model": "tiny", "object": "chat.completion.chunk"}
    pieces: list[tuple[Json, str | None]] = [({"tool_calls": [entry]}, None) for entry in entries]
    return [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in [*pieces, ({}, "tool_calls")]
    ]


def fragment(call_id: str, name: str, arguments: str, **index: int) -> Json:
    """Return a whole tool call, as some engines stream it."""
    return {**index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


PART = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
    {"type": "text", "text": "Four."},
]
OPENING = {"model": MODELS[1]}
SWITCHED_OFF = {**OPENING, "chat_template_kwargs": {"enable_thinking": False}}
LATE = {"id": "1", "created": 1, "model": "tiny", "object": "chat.completion.chunk"}
CASES: dict[Difference, list[tuple[bool, Reply, Json]]] = {
    scaling_is_added: [(False, said("Hi"), {}), (True, said("Hi", stream=True), {})],
    thinking_has_both_names: [
        (False, said("Hi", reasoning="Hm"), {}),
        (True, said("Hi", stream=True, reasoning_content="Hm"), {}),
    ],
    a_closed_block_is_split_off: [
        (False, said("<think>Hm</think>Hi"), {}),
        (True, said("<think>Hm</think>Hi", stream=True), {}),
    ],
    an_open_block_streams_as_thinking: [
        (True, said("Hi", stream=True), OPENING),
        (True, said("Hi", stream=True, finish="length"), OPENING),
    ],
    an_index_is_a_number: [
        (False, said("Hi", index="0"), {}),
        (True, said("Hi", stream=True, index=None), {}),
        (True, called(fragment("a", "read", "{}", index=0), fragment("b", "write", "{}", index=0)), {}),
        (True, called(fragment("a", "read", "{}"), fragment("b", "write", "{}")), {}),
    ],
    a_tool_call_has_an_id_and_one_name: [
        (True, called(fragment("a", "read", "{", index=0), fragment("", "", "}", index=0)), {}),
        (True, called(fragment("", "read", "{}", index=0)), {}),
        (True, called(fragment("a", "read", "{", index=0), fragment("a", "read", "}", index=0)), {}),
    ],
    an_ending_has_openais_word: [
        (False, said("Hi", finish="end_turn"), {}),
        (True, said("Hi", stream=True, finish="max_tokens"), {}),
    ],
    content_is_a_text: [(False, said(PART), {}), (True, said(PART, stream=True), {})],
    usage_is_believable: [
        (False, [{**said("Hi")[0], "usage": "much"}], {}),
        (True, [*said("Hi", stream=True), {**LATE, "choices": [], "usage": {"prompt_tokens": -1}}], {}),
    ],
    an_answer_filed_as_thinking_is_the_answer: [
        (False, said(None, reasoning="Four."), SWITCHED_OFF),
        (True, said("", stream=True, reasoning="Four."), SWITCHED_OFF),
    ],
    nothing_follows_the_end: [(True, [*said("Hi", stream=True), said("more", stream=True)[0]], {})],
    a_failure_is_an_error: [
        (False, said("Hi", finish="abort"), {}),
        (True, said("Hi", stream=True, finish="abort"), {}),
    ],
}


async def test_there_are_at_most_twelve_exceptions() -> None:
    """Each of them has a case."""
    assert len(EXCEPTIONS) <= 12
    assert CASES.keys() == set(EXCEPTIONS)


@pytest.mark.parametrize(
    ("exception", "stream", "answer", "fields"),
    [
        pytest.param(exception, *case, id=f"{exception.__name__}-{'streamed' if case[0] else 'whole'}")
        for exception, cases in CASES.items()
        for case in cases
    ],
)
async def test_an_exception_is_needed(
    proxy: Proxy, exception: Difference, stream: bool, answer: Reply, fields: Json
) -> None:
    """The replies are equal with all exceptions, and differ without this one."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "WORD"}], "stream": stream, **fields}
    exchange = await proxy.exchange(body, answer)
    assert exchange.upstream == [exchange.body]
    engine, gateway = compare(exchange.body, answer, exchange.reply, EXCEPTIONS)
    assert gateway == engine
    others = [other for other in EXCEPTIONS if other is not exception]
    engine, gateway = compare(exchange.body, answer, exchange.reply, others)
    assert gateway != engine


# The other dialects send upstream what the translation table says.

QUESTION = [{"role": "user", "content": "WORD"}]
TRANSLATED: list[tuple[str, Json, Json]] = [
    ("/v1/responses", {"input": "WORD"}, {"messages": QUESTION}),
    (
        "/v1/responses",
        {
            "input": "WORD",
            "instructions": "Be brief.",
            "max_output_tokens": 9,
            "temperature": 0.5,
            "store": False,
        },
        {
            "messages": [{"role": "system", "content": "Be brief."}, *QUESTION],
            "max_tokens": 9,
            "temperature": 0.5,
        },
    ),
    (
        "/v1/responses",
        {
            "input": "WORD",
            "text": {"format": {"type": "json_object"}, "verbosity": "low"},
            "top_k": 4,
            "user": "u",
        },
        {"messages": QUESTION, "response_format": {"type": "json_object"}, "verbosity": "low", "top_k": 4},
    ),
    (
        "/v1/responses",
        {
            "input": "WORD",
            "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
            "tool_choice": {"type": "function", "name": "read"},
            "reasoning": {"summary": "auto"},
            "include": ["reasoning.encrypted_content"],
        },
        {
            "messages": QUESTION,
            "tools": [{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "read"}},
        },
    ),
    ("/v1/messages", {"max_tokens": 9, "messages": QUESTION}, {"messages": QUESTION, "max_tokens": 9}),
    (
        "/v1/messages",
        {
            "max_tokens": 9,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": QUESTION,
            "stop_sequences": ["END"],
            "top_k": 4,
            "metadata": {"user_id": "u"},
            "thinking": {"type": "adaptive"},
        },
        {
            "messages": [{"role": "system", "content": "Be brief."}, *QUESTION],
            "max_tokens": 9,
            "stop": ["END"],
            "top_k": 4,
        },
    ),
    (
        "/v1/messages",
        {
            "max_tokens": 9,
            "messages": QUESTION,
            "tools": [{"name": "read", "description": "Reads.", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        },
        {
            "messages": QUESTION,
            "max_tokens": 9,
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "read", "description": "Reads.", "parameters": {"type": "object"}},
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "fields", "expected"), TRANSLATED)
async def test_the_other_dialects_send_what_the_table_says(
    proxy: Proxy, path: str, fields: Json, expected: Json, stream: bool
) -> None:
    """They add nothing but the request for usage, which their replies always report, to a stream."""
    exchange = await proxy.exchange(
        {"model": "tiny", **fields, "stream": stream}, said("Hi", stream=stream), path
    )
    assert exchange.response.status_code == 200, exchange.response.text
    [sent] = exchange.upstream
    if not stream:
        sent.pop("stream", None)
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    messages = json.loads(json.dumps(expected["messages"]).replace("WORD", content_of(exchange.body)))
    assert sent == {"model": "tiny", **expected, "messages": messages, **streaming}


def content_of(body: Json) -> str:
    """Return the text of a request's last message."""
    text = body["input"] if "input" in body else body["messages"][-1]["content"]
    assert isinstance(text, str)
    return text
