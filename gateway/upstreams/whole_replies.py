"""Whole replies, checked: a body whose choices can be used, and the error of each that can't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.base import Completion
from gateway.upstreams.checks import (
    check_envelope,
    check_message,
    checked_finish,
    checked_index,
    checked_logprobs,
    checked_usage,
    legacy_logprobs,
)
from gateway.upstreams.failures import error_of, failed_finish, malformed
from gateway.upstreams.tool_calls import Malformed, check_tool_calls

__all__ = ["check_reply"]


def check_reply(
    reply: dict[str, Any],
    choices: int = 1,
    *,
    text: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Completion:
    """Return a whole reply, checked.

    A reply of `/v1/completions` (`text`) gets the shape of a chat reply. Raises `UpstreamError` where it is
    an error or has no choices. `headers`, which a client should see, go with either.
    """
    sent = reply.get("choices")
    if (not sent or "error" in reply) and (error := error_of(reply, headers)) is not None:
        raise error
    if not isinstance(sent, list) or not sent:
        raise UpstreamUnreachable("The upstream's reply has no choices.")
    check_envelope(reply)
    if reply.get("usage") is not None and checked_usage(reply["usage"]) is None:
        del reply["usage"]
    failures: dict[int, UpstreamError] = {}
    checked: list[dict[str, Any]] = []
    listed: set[int] = set()
    for index, choice in _placed(sent, choices):
        try:
            checked.append(_whole_choice(choice, index, text, listed))
        except Malformed as problem:
            failures[index] = malformed(str(problem))
            checked.append(
                {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
            )
            continue
        finish, usable = checked_finish(checked[-1])
        if not usable:
            failures[index] = failed_finish(checked[-1]["finish_reason"])
            if not isinstance(checked[-1]["finish_reason"], str):
                checked[-1]["finish_reason"] = None
        elif finish is None:
            failures[index] = UpstreamUnreachable("The upstream's reply has no finish reason.")
    if not checked:
        failures[0] = malformed("its index is none that was asked for")
    reply["choices"] = checked
    if text:
        reply["object"] = "chat.completion"
    return Completion(reply, failures, headers or {}, frozenset(listed))


def _placed(sent: list[Any], choices: int) -> list[tuple[int, Any]]:
    """Return the choices with their indices; by position where several lack one or share one."""
    if choices == 1:
        if isinstance(sent[0], dict) and sent[0].get("index") == 0:
            return [(0, sent[0])]
        first = [
            (0, choice)
            for choice in sent
            if not isinstance(choice, dict) or checked_index(choice.get("index"), True) == 0
        ]
        return first[:1]
    indices = [
        checked_index(choice.get("index"), False) if isinstance(choice, dict) else None for choice in sent
    ]
    if None in indices or len(set(indices)) < len(indices):
        indices = list(range(len(sent)))
    placed = [
        (index, choice)
        for index, choice in zip(indices, sent, strict=True)
        if index is not None and 0 <= index < choices
    ]
    return sorted(placed, key=lambda pair: pair[0])


def _whole_choice(choice: Any, index: int, text: bool, listed: set[int]) -> dict[str, Any]:
    """Return a checked choice; add its index to `listed` if its content is a list. Raises `Malformed`."""
    if not isinstance(choice, dict):
        raise Malformed("it is no object")
    if type(choice.get("index")) is not int or choice["index"] != index:
        choice["index"] = index
    if text:
        written = choice.pop("text", "")
        if written is not None and not isinstance(written, str):
            raise Malformed("its text is no string")
        choice["message"] = {"role": "assistant", "content": written or ""}
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("its message is no object")
    if check_message(message, check_tool_calls):
        listed.add(index)
    if choice.get("logprobs") is not None:
        choice["logprobs"] = (legacy_logprobs if text else checked_logprobs)(choice["logprobs"])
    return choice
