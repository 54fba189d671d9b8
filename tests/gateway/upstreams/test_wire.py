"""The gate: what an upstream may send, and what becomes of it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.upstreams.adapters import LlamaCppAdapter, VLLMAdapter
from gateway.upstreams.adapters.base import EngineAdapter
from gateway.upstreams.base import Chunk, ModelTraits
from gateway.upstreams.blackout import KeyBlackout
from gateway.upstreams.checks import json_object
from gateway.upstreams.sse import ErrorPayload
from gateway.upstreams.whole_replies import check_reply
from gateway.upstreams.wire import ChunkReader

MISTRAL = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, " so"]},
    {"type": "text", "text": "Fo"},
    "ur.",
    {"type": "image_url", "image_url": {"url": "x"}},
]


def reader(choices: int = 1, adapter: EngineAdapter | None = None, **options: Any) -> ChunkReader:
    """Return a reader of a stream with so many choices."""
    return ChunkReader(adapter or EngineAdapter(), ModelTraits(), choices, **options)


def event(delta: object = None, *, choice: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return an event with one choice, whose fields `choice` replaces."""
    usual = {"index": 0, "delta": {"content": "a"} if delta is None else delta, "finish_reason": None}
    envelope = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return {**envelope, "choices": [{**usual, **(choice or {})}], **fields}


def read(*events: dict[str, Any], choices: int = 1, adapter: EngineAdapter | None = None) -> list[Chunk]:
    """Return the chunks of these events."""
    stream = reader(choices, adapter)
    return [chunk for each in events for chunk in stream.read(json.dumps(each).encode())]


def whole(message: object = None, *, choice: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a whole reply, whose choice's fields `choice` replaces."""
    usual = {"role": "assistant", "content": "a"} if message is None else message
    return {
        "id": "up-1",
        "choices": [{"index": 0, "message": usual, "finish_reason": "stop", **(choice or {})}],
        **fields,
    }


def checked(reply: dict[str, Any], choices: int = 1) -> tuple[dict[str, Any], dict[int, UpstreamError]]:
    """Check a copy of a whole reply."""
    completion = check_reply(json.loads(json.dumps(reply)), choices)
    return completion.body, dict(completion.failures)


def test_a_regular_event_passes_unchanged() -> None:
    """Event, choice and delta are the engine's own, unknown fields included."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    logprobs = {
        "content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}],
        "refusal": None,
    }
    for sent in (
        event({"role": "assistant", "content": ""}, system_fingerprint=None, vendor={"a": [1]}),
        event({"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"index": 0}]}),
        event({"tool_calls": [call]}, choice={"logprobs": logprobs, "odd": 1}),
        event(
            {}, choice={"finish_reason": "length", "stop_reason": 3}, usage={"prompt_tokens": 1, "cost": 0.5}
        ),
        event(
            choices=[], usage={"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1, "x": "y"}}
        ),
    ):
        [chunk] = read(sent)
        assert (chunk.event, chunk.failure) == (sent, None)
        assert chunk.choice == (sent["choices"][0] if sent["choices"] else {})


def test_a_regular_reply_passes_unchanged() -> None:
    """The body is the engine's own, unknown fields included."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call], "annotations": []}
    sent = whole(
        message, choice={"finish_reason": "tool_calls", "odd": [1]}, usage={"prompt_tokens": 1}, x=None
    )
    assert checked(sent) == (sent, {})


@pytest.mark.parametrize("index", ["0", None, 0.0])
def test_the_only_choice_may_write_its_index_otherwise(index: object) -> None:
    """One choice was asked for, so there is no doubt."""
    assert read(event(choice={"index": index}))[0].index == 0
    body, failures = checked(whole(choice={"index": index}))
    assert (body["choices"][0]["index"], failures) == (0, {})


@pytest.mark.parametrize("index", [-1, 7, [], "x", True])
def test_an_index_that_nobody_asked_for_answers_nobody(index: object) -> None:
    """The sample then ends without an end, which is a failure."""
    stream = reader()
    assert not stream.read(json.dumps(event(choice={"index": index, "finish_reason": "stop"})).encode())
    with pytest.raises(UpstreamError, match="before it was complete"):
        stream.end()
    assert set(checked(whole(choice={"index": index}))[1]) == {0}


def test_choices_without_indices_are_told_apart_by_position() -> None:
    """That works in a whole reply; a stream of several choices fails."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
    for extra in ({}, {"index": 0}, {"index": None}):
        body, failures = checked({"choices": [{**choice, **extra} for choice in choices]}, 2)
        assert [(each["index"], each["message"]["content"]) for each in body["choices"]] == [
            (0, "a"),
            (1, "b"),
        ]
        assert not failures
    assert checked({"choices": choices})[0]["choices"] == [{**choices[0], "index": 0}]
    with pytest.raises(UpstreamError, match="has no index"):
        read(event(choice={"index": None}), choices=2)


def test_content_as_a_list_of_parts_is_understood() -> None:
    """Mistral's thinking becomes reasoning and its text the answer; other parts are left out."""
    [chunk] = read(event({"content": MISTRAL}))
    assert (chunk.content, chunk.reasoning) == ("Four.", "hm so")
    assert chunk.choice["delta"] == {"content": "Four.", "reasoning_content": "hm so"}
    message = checked(whole({"role": "assistant", "content": MISTRAL}))[0]["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Four.", "hm so")


@pytest.mark.parametrize(
    ("delta", "problem"),
    [
        ({"content": 5}, "content"),
        ({"content": {}}, "content"),
        ("hi", "delta"),
        ({"tool_calls": "x"}, "tool_calls"),
    ],
)
def test_a_malformed_delta_costs_its_choice_only(delta: object, problem: str) -> None:
    """The other choice of the stream goes on."""
    bad, good, more = read(event(delta), event(choice={"index": 1}), event(choice={"index": 1}), choices=2)
    assert bad.index == 0
    assert bad.failure is not None
    assert (bad.failure.status, problem in bad.failure.message) == (502, True)
    assert (good.content, more.content) == ("a", "a")
    if isinstance(delta, dict):
        assert problem in checked(whole(delta))[1][0].message


@pytest.mark.parametrize("choice", [None, 5, "x"])
def test_a_choice_that_is_no_object_has_failed(choice: object) -> None:
    """It costs the only sample; among several nobody knows whose it was."""
    sent = event(choices=[choice])
    assert read(sent)[0].failure is not None
    with pytest.raises(UpstreamError, match="no object"):
        read(sent, choices=2)
    assert set(checked({"choices": [choice]})[1]) == {0}


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("eos_token", "stop"),
        ("tool_use", "tool_calls"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("function_call", "function_call"),
    ],
)
def test_finish_reasons_are_told_in_openais_words(word: str, meaning: str) -> None:
    """Vendors' words for an answer that is complete or cut become OpenAI's."""
    [chunk] = read(event({}, choice={"finish_reason": word}))
    assert (chunk.finish_reason, chunk.choice["finish_reason"], chunk.failure) == (meaning, meaning, None)
    body, failures = checked(whole(choice={"finish_reason": word}))
    assert (body["choices"][0]["finish_reason"], failures) == (meaning, {})


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("abort", 502, "abort"),
        ("error", 502, "error"),
        ("soon", 502, "soon"),
        ("content_filter", 400, "content_filter"),
        (3, 502, "malformed_reply"),
        (["stop"], 502, "malformed_reply"),
    ],
)
def test_a_sample_that_ended_otherwise_has_failed(reason: object, status: int, code: str) -> None:
    """Its text is no answer; a content filter is a 400, so that clients don't try again."""
    [chunk] = read(event(choice={"finish_reason": reason}))
    failures = checked(whole(choice={"finish_reason": reason}))[1]
    for failure in (chunk.failure, failures[0]):
        assert failure is not None
        assert (failure.status, failure.code) == (status, code)


@pytest.mark.parametrize("reason", ["", None])
def test_a_sample_without_a_finish_reason_has_failed(reason: object) -> None:
    """An empty one counts as none: the stream ends without an end."""
    stream = reader(2)
    stream.read(json.dumps(event(choice={"finish_reason": reason})).encode())
    stream.read(json.dumps(event(choice={"index": 1, "finish_reason": "stop"})).encode())
    [left] = stream.end()
    assert (left.index, left.failure is not None) == (0, True)
    assert set(checked(whole(choice={"finish_reason": reason}))[1]) == {0}


def test_a_second_end_is_ignored() -> None:
    """The first finish reason counts, and clients see no other."""
    first, second = event({"content": "a"}, choice={"finish_reason": "stop"}), event({})
    second["choices"][0]["finish_reason"] = "length"
    assert [chunk.finish_reason for chunk in read(first, second)] == ["stop"]


def test_text_after_the_end_is_ignored() -> None:
    """What comes after a choice's finish reason is not shown; usage still counts."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    chunks = read(
        event(choice={"finish_reason": "stop"}), event(), event(usage=usage), event({}, usage=usage)
    )
    assert [(chunk.index, chunk.content, chunk.usage) for chunk in chunks] == [
        (0, "a", None),
        (None, "", usage),
        (None, "", usage),
    ]
    assert chunks[1].event["choices"] == []


def test_of_two_choices_with_one_index_the_first_counts() -> None:
    """One choice was asked for, and came twice in one event or reply."""
    sent = event()
    sent["choices"] *= 2
    assert [chunk.content for chunk in read(sent)] == ["a"]
    reply = whole()
    reply["choices"].append(whole({"content": "b"})["choices"][0])
    assert [each["message"]["content"] for each in checked(reply)[0]["choices"]] == ["a"]


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429, "slow down"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": {"message": "busy"}, "status": 503}, 503, "busy"),
        ({"error": "busy"}, 502, "busy"),
        ({"error": {"message": {"deep": ["x"]}, "type": 5, "code": [1]}}, 502, "deep"),
        ({"object": "error", "message": "boom", "code": 503}, 503, "boom"),
        ({"object": "error", "message": "boom", "code": 500}, 502, "boom"),
        ({"type": "error", "error": {"type": "overloaded", "message": "full"}}, 502, "full"),
        ({"detail": "no such route"}, 502, "no such route"),
        ({"message": "boom", "code": 504}, 504, "boom"),
        ({"error": {"message": "bad key", "code": 401}}, 502, "refused the gateway's key"),
        ({"error": {"message": "odd", "code": 200}}, 502, "odd"),
    ],
)
def test_an_error_in_a_200_keeps_its_own_status(reply: dict[str, Any], status: int, message: str) -> None:
    """It may have any shape, as a whole reply or as an event. 500 would look like the gateway's own bug."""
    for reading in (lambda: check_reply(dict(reply)), lambda: read(reply)):
        with pytest.raises(UpstreamError, match=message) as error:
            reading()
        assert error.value.status == status
        orjson.dumps(error.value.body())


@pytest.mark.parametrize("payload", [b'{"message": "boom"}', b"boom", b'{"error": {"message": "boom"}}'])
def test_an_event_named_error_is_an_error(payload: bytes) -> None:
    """Whatever its data are."""
    with pytest.raises(UpstreamError, match="boom"):
        reader().read(ErrorPayload(payload))


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ("many", None),
        ([1], None),
        ({"prompt_tokens": "5", "completion_tokens": 9.0}, {"prompt_tokens": 5, "completion_tokens": 9}),
        ({"prompt_tokens": -5, "completion_tokens": 10**18, "total_tokens": 1.5}, {}),
        ({"prompt_tokens": True, "completion_tokens": None}, {"completion_tokens": None}),
        ({"completion_tokens_details": "x", "cost": 0.1}, {"cost": 0.1}),
        (
            {"completion_tokens_details": {"reasoning_tokens": "3", "audio_tokens": -1}},
            {"completion_tokens_details": {"reasoning_tokens": 3}},
        ),
    ],
)
def test_implausible_usage_is_left_out(usage: object, kept: object) -> None:
    """Digits and whole floats count as numbers; a reply's text doesn't suffer from the rest."""
    for adapter in (EngineAdapter(), VLLMAdapter(), LlamaCppAdapter()):
        [chunk] = read(event(usage=usage), adapter=adapter)
        assert (chunk.usage, chunk.content, chunk.failure) == (kept, "a", None)
    assert checked(whole(usage=usage))[0].get("usage") == kept


@pytest.mark.parametrize(
    "logprobs", ["x", {"content": "x"}, {"content": [1]}, {"content": [{"token": 1, "logprob": 0}]}]
)
def test_malformed_logprobs_are_left_out(logprobs: object) -> None:
    """The text stays."""
    [chunk] = read(event(choice={"logprobs": logprobs}))
    assert (chunk.content, chunk.choice["logprobs"]) == ("a", None)


def test_python_writes_json_that_is_none() -> None:
    """NaN becomes null, half a surrogate pair a question mark, and large whole numbers lose digits."""
    payload = b'{"a": NaN, "b": "x\\ud83d", "c": 1000000000000000000000000000000}'
    assert json_object(payload) == {"a": None, "b": "x?", "c": 1e30}


@pytest.mark.parametrize(
    "payload", [b"", b"<html>", b"\xff\xfe", b'{"a": "\xff"}', b"[1]", b"5", b"{" * 9_000]
)
def test_what_is_no_json_object_is_an_error(payload: bytes) -> None:
    """The error says so, in one kind."""
    with pytest.raises(UpstreamError, match=r"not JSON|not a JSON object|is empty"):
        json_object(payload)


def test_a_reply_that_is_too_deep_to_write_is_an_error() -> None:
    """An unknown field may be nested as deeply as orjson writes, with room for what the gateway adds."""
    deep = event(x=json.loads("[" * 220 + "]" * 220))
    assert orjson.dumps([[[chunk.event for chunk in read(deep)]]])
    with pytest.raises(UpstreamError, match="too deeply"):
        read(event(x=json.loads("[" * 300 + "]" * 300)))


names = st.sampled_from(
    ["index", "delta", "message", "content", "reasoning", "reasoning_content", "tool_calls", "logprobs",
     "finish_reason", "usage", "choices", "error", "id", "model", "created", "text", "type", "object", "role",
     "detail", "thinking", "timings", "token_ids", "prompt_tokens", "completion_tokens", "function", "name",
     "arguments"]
)  # fmt: skip
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["stop", "abort", "0", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
paths = st.lists(st.sampled_from(["choices", 0, "delta", "message", "tool_calls", "usage"]), max_size=4)


def with_value(template: Any, path: list[Any], name: str, value: Any) -> Any:
    """Return a copy of the template with a value put somewhere."""
    copy = json.loads(json.dumps(template))
    place = copy
    for step in path:
        if isinstance(place, dict) and step in place:
            place = place[step]
        elif isinstance(place, list) and place and step == 0:
            place = place[0]
    if isinstance(place, dict):
        place[name] = value
    elif isinstance(place, list):
        place[:] = [value]
    return copy


CALLS = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]


@given(
    st.lists(st.tuples(paths, names, json_values), max_size=4),
    st.integers(1, 2),
    st.sampled_from("cvl"),
    st.booleans(),
)
def test_any_value_anywhere_in_a_stream_is_chunks_or_one_error(
    mutations: list[tuple[list[Any], str, Any]], choices: int, engine: str, text: bool
) -> None:
    """No other exception leaves the gate, and everything that comes out can be written again."""
    adapter = {"c": EngineAdapter(), "v": VLLMAdapter(), "l": LlamaCppAdapter()}[engine]
    stream = reader(choices, adapter, text=text, hide_ids=text)
    sent: Any = event(
        {"content": "a", "tool_calls": CALLS}, usage={"prompt_tokens": 1}, timings={"predicted_n": 1}
    )
    try:
        chunks = list(stream.read(json.dumps(sent).encode()))
        for path, name, value in mutations:
            sent = with_value(sent, path, name, value)
            chunks += stream.read(json.dumps(sent).encode())
        chunks += stream.end()
    except UpstreamError as error:
        orjson.dumps(error.body())
        return
    for chunk in chunks:
        orjson.dumps([chunk.event, chunk.choice, chunk.usage])
        assert isinstance(chunk.content + chunk.reasoning, str)
        assert chunk.index is None or 0 <= chunk.index < choices
        assert chunk.finish_reason is None or isinstance(chunk.finish_reason, str)
        for count in (chunk.usage or {}).get("prompt_tokens"), chunk.tokens:
            assert count is None or (type(count) is int and count >= 0)
        for call in (chunk.choice.get("delta") or {}).get("tool_calls") or ():
            assert type(call["index"]) is int


@given(st.lists(st.tuples(paths, names, json_values), max_size=4), st.integers(1, 2), st.booleans())
def test_any_value_anywhere_in_a_reply_is_a_reply_or_one_error(
    mutations: list[tuple[list[Any], str, Any]], choices: int, text: bool
) -> None:
    """No other exception leaves the gate, and everything that comes out can be written again."""
    sent: Any = whole({"role": "assistant", "content": "a", "tool_calls": CALLS}, usage={"prompt_tokens": 1})
    for path, name, value in mutations:
        sent = with_value(sent, path, name, value)
    try:
        completion = check_reply(json_object(json.dumps(sent).encode()), choices, text=text)
    except UpstreamError as error:
        orjson.dumps(error.body())
        return
    body, failures = completion.body, completion.failures
    orjson.dumps(body)
    assert body["choices"] or failures
    for choice in body["choices"]:
        assert isinstance(choice["message"], dict)
        assert isinstance(choice["message"].get("content"), (str, type(None)))
        assert isinstance(choice.get("finish_reason"), str) or choice["index"] in failures


KEY = 'sk-a/b"c-0123456789'


@pytest.mark.parametrize(
    "text",
    [KEY, f"before {KEY} after {KEY}", "".join(f"\\u{ord(letter):04x}" for letter in KEY)],
)
def test_the_upstreams_key_never_passes(text: str) -> None:
    """However JSON writes it: plainly, with escaped slashes, or letter by letter."""
    escaped = text if text.startswith("\\") else json.dumps(text)[1:-1]
    for spelling in (escaped, escaped.replace("/", "\\/")):
        payload = b'{"error": {"message": "wrong key: %s"}}' % spelling.encode()
        black = KeyBlackout(KEY).payload(payload)
        assert orjson.loads(black)["error"]["message"].startswith("wrong key: ")
        assert KEY not in orjson.loads(black)["error"]["message"]
        assert "[upstream key]" in orjson.loads(black)["error"]["message"]


def test_a_placeholder_is_no_key() -> None:
    """Local engines get "none" or "EMPTY"; these words may stand in replies."""
    assert KeyBlackout("EMPTY").payload(b'{"a": "EMPTY"}') == b'{"a": "EMPTY"}'
    assert KeyBlackout(None).payload(b"x") == b"x"
