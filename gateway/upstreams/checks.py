"""What a reply and an event must look like. Regular values pass unchanged; the others are mended or refused.

Events and replies are JSON that was just read, so it is mended in place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.errors import UpstreamUnreachable
from gateway.upstreams.failures import finish_of
from gateway.upstreams.tool_calls import Malformed

__all__ = [
    "PLAIN_DELTA",
    "check_envelope",
    "check_message",
    "checked_finish",
    "checked_index",
    "checked_logprobs",
    "checked_usage",
    "count",
    "json_object",
    "legacy_logprobs",
    "token_ids",
]

PLAIN_DELTA = frozenset({"content", "reasoning", "reasoning_content"})
"""The fields of a message that hold its text."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_DETAIL_COUNTS = (
    "cached_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
)
_MOST_TOKENS = 10**12
_HARMLESS_LEVELS = 200
"""Levels of nesting that can always be written again; orjson writes 254."""
_SPARE_LEVELS = 24
"""Levels that the gateway may add around what an upstream sent."""

Message = dict[str, Any]


def json_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in an upstream's bytes; it can be written again.

    Raises `UpstreamUnreachable`.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        value = _tolerant_json(payload, error)
    message: Message = value if type(value) is dict else _listed_error(value)
    if len(payload) > 2 * _HARMLESS_LEVELS and payload.count(b"[") + payload.count(b"{") > _HARMLESS_LEVELS:
        _check_depth(message)
    return message


def _listed_error(value: object) -> Message:
    """Return the error that Gemini's API sends as the only item of a list. Raises `UpstreamUnreachable`."""
    errors: list[Message] = value if isinstance(value, list) else []
    if len(errors) == 1 and isinstance(errors[0], dict) and "error" in errors[0]:
        return errors[0]
    raise UpstreamUnreachable("The upstream's reply is not a JSON object.")


def _check_depth(value: Any) -> None:
    for _ in range(_SPARE_LEVELS):
        value = (value,)
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise UpstreamUnreachable("The upstream's reply is nested too deeply.") from error


def _tolerant_json(payload: bytes, error: Exception) -> Any:
    """Read JSON as Python writes it: NaN, infinities (both become null) and halves of surrogate pairs."""
    if not payload.strip():
        raise UpstreamUnreachable("The upstream's reply is empty.") from error
    try:
        value = json.loads(payload, parse_constant=lambda _: None)
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise UpstreamUnreachable("The upstream's reply is not JSON.") from error


def check_envelope(event: Message) -> None:
    """Remove the fields of a reply that have a wrong type."""
    if (
        len(event) - ("usage" in event) == 5  # these four and the choices
        and type(event.get("id")) is str
        and type(event.get("model")) is str
        and type(event.get("object")) is str
        and type(event.get("created")) is int
    ):
        return
    for name in ("id", "model", "object", "system_fingerprint", "service_tier"):
        if name in event and not (event[name] is None or isinstance(event[name], str)):
            del event[name]
    created = event.get("created")
    if created is not None and type(created) is not int:
        number = count(created)
        if number is None:
            del event["created"]
        else:
            event["created"] = number


def checked_index(index: object, alone: bool) -> int | None:
    """Return a choice's index; None where it has none. The only choice may leave it out."""
    if type(index) is int:
        return index
    if index is None and alone:
        return 0
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 5:
        return int(index)
    if isinstance(index, float) and index.is_integer() and abs(index) < 10_000:
        return int(index)
    return None


def checked_finish(choice: Message) -> tuple[str | None, bool]:
    """Return a choice's finish reason in OpenAI's words, and whether it is one of an answer."""
    reason = choice.get("finish_reason")
    if reason is None:
        return None, True
    if reason == "":  # of engines that leave no field out
        choice["finish_reason"] = None
        return None, True
    word = finish_of(reason) if isinstance(reason, str) else None
    if word is None:
        return None, False
    if word != reason:
        choice["finish_reason"] = word
    return word, True


def check_message(message: Message, read_calls: Callable[[object], list[Message]]) -> bool:
    """Check a message, or a delta of one; `read_calls` checks its tool calls. Raises `Malformed`.

    Return whether the content came as a list of parts.
    """
    content = message.get("content")
    listed = isinstance(content, list)
    if isinstance(content, list):
        _split_parts(message, content)
    elif content is not None and not isinstance(content, str):
        raise Malformed("its content is neither text nor a list of parts")
    for name in ("reasoning_content", "reasoning"):
        thought = message.get(name)
        if isinstance(thought, list):
            text, answer = _texts(thought)
            message[name] = text + answer
        elif thought is not None and not isinstance(thought, str):
            del message[name]
    calls = message.get("tool_calls")
    if calls is not None and calls != []:
        message["tool_calls"] = read_calls(calls)
        if not message["tool_calls"]:
            del message["tool_calls"]
    for name in ("role", "refusal"):
        if not isinstance(message.get(name, ""), (str, type(None))):
            del message[name]
    for name in ("audio", "function_call"):
        if not isinstance(message.get(name), (dict, type(None))):
            del message[name]
    for name in ("annotations", "reasoning_details"):
        items = message.get(name)
        if items is not None and not (
            isinstance(items, list) and all(isinstance(item, dict) for item in items)
        ):
            del message[name]
    return listed


def _split_parts(message: Message, parts: list[Any]) -> None:
    """Replace a list of parts (Mistral's API) by its text, and file its thinking as reasoning."""
    thought, answer = _texts(parts)
    message["content"] = answer
    if thought:
        own = message.get("reasoning_content")
        message["reasoning_content"] = (own if isinstance(own, str) else "") + thought


def _texts(parts: list[Any]) -> tuple[str, str]:
    """Return the thinking and the answer in a list of parts. Parts without text are left out."""
    thinking: list[str] = []
    answer: list[str] = []
    for part in parts:
        if isinstance(part, str):
            answer.append(part)
        elif isinstance(part, dict) and (part.get("type") == "thinking" or "thinking" in part):
            inner = part.get("thinking")
            if isinstance(inner, str):
                thinking.append(inner)
            elif isinstance(inner, list):
                thinking += [text for item in inner if (text := _text_of(item))]
        elif text := _text_of(part):
            answer.append(text)
    return "".join(thinking), "".join(answer)


def _text_of(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""


def checked_logprobs(logprobs: object) -> Mapping[str, Any] | None:
    """Return a choice's log probabilities; None where they have another shape than OpenAI's."""
    if not isinstance(logprobs, dict):
        return None
    for name in ("content", "refusal"):
        entries = logprobs.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            return None
    return logprobs


def _is_entry(entry: object) -> bool:
    if type(entry) is not dict or type(entry.get("token")) is not str:
        return False
    if type(entry.get("logprob")) not in (float, int):
        return False
    top = entry.get("top_logprobs")
    return top is None or (
        type(top) is list
        and all(type(other) is dict and type(other.get("logprob")) in (float, int) for other in top)
    )


def legacy_logprobs(legacy: object) -> Mapping[str, Any] | None:
    """Turn `/v1/completions`' parallel lists of logprobs into chat's list of objects (OpenAI's API)."""
    if not isinstance(legacy, dict) or "tokens" not in legacy:
        return checked_logprobs(legacy)
    try:
        tops = legacy.get("top_logprobs") or [None] * len(legacy["tokens"])
        content = [
            {
                "token": token,
                "logprob": logprob,
                "bytes": list(token.encode()),
                "top_logprobs": [
                    {"token": other, "logprob": value, "bytes": list(other.encode())}
                    for other, value in (top or {}).items()
                ],
            }
            for token, logprob, top in zip(legacy["tokens"], legacy["token_logprobs"], tops, strict=True)
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return checked_logprobs({"content": content})


def checked_usage(usage: object) -> Message | None:
    """Return a usage whose counts are plausible; those that aren't are left out."""
    if type(usage) is not dict:
        return None
    for value in usage.values():
        if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
            break
    else:
        return usage
    for name in _COUNTS:
        value = usage.get(name)
        if value is not None and not (type(value) is int and 0 <= value <= _MOST_TOKENS):
            _mend(usage, name)
    for name in _DETAILS:
        details = usage.get(name)
        if details is None:
            continue
        if not isinstance(details, dict):
            del usage[name]
            continue
        for detail in _DETAIL_COUNTS:
            if details.get(detail) is not None:
                _mend(details, detail)
    return usage


def _mend(counts: Message, name: str) -> None:
    number = count(counts[name])
    if number is None:
        del counts[name]
    else:
        counts[name] = number


def count(value: object) -> int | None:
    """Return a number of tokens, which may be written as digits or as a whole float; None for another."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 13
    if digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)  # type: ignore[call-overload]
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def token_ids(ids: object) -> list[int]:
    """Return a choice's token ids; none where it has no list of them."""
    return ids if isinstance(ids, list) and all(type(value) is int for value in ids) else []
