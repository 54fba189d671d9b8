"""Shapes a client's request for a model family: its switches, the system prompt, earlier thinking.

Pure: nothing here changes its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from policies.families import Family, Switch
from policies.thinking import Markup, split_thinking
from policies.types import SamplingRequest

__all__ = ["DIRECT_PROMPT", "NO_THINKING", "OffMethod", "ShapedRequest", "shape", "strip_thinking"]

NO_THINKING = "Okay, I think I have finished thinking."
"""The text of the closed block that the gateway writes for a model without a switch for off.

Source: "Reasoning Models Can Be Effective Without Thinking" (arXiv 2504.09858).
"""

DIRECT_PROMPT = "Answer directly, without thinking first."
"""The system prompt that turns thinking off where nothing else can and the level brings no prompt."""

OffMethod = Literal["native", "already", "prefill", "effort", "prompt"]
ThinkingState = Literal["on", "off"]
_SYSTEM_ROLES = ("system", "developer")
"""OpenAI's newer models take from a developer message what others take from a system message."""


@dataclass(frozen=True, slots=True)
class ShapedRequest:
    """One request, ready for an engine.

    `body` is the request to send. `prefill` is the beginning of the assistant's turn that the
    gateway writes itself, right behind the rendered prompt. `prefix` is the same turn from its
    first character, with the opening tag that the template would have written; it is for engines
    that take only a chat prefix. `markup` is that of the text which follows.

    `off` says how thinking is off; None: it is on, or nobody switched it.

    - "native": by the family's own switch, or by the client's own words.
    - "already": the model does not think unless a switch is on.
    - "prefill": by a closed block of thinking in `prefill`.
    - "effort": by the lowest effort.
    - "prompt": only by the system prompt.

    `notes` say in words what differs from the request.
    """

    body: dict[str, Any]
    markup: Markup
    off: OffMethod | None = None
    notes: tuple[str, ...] = ()
    prefill: str = ""
    prefix: str = ""


def shape(
    family: Family, body: Mapping[str, Any], sampling: SamplingRequest, policy: str | None
) -> ShapedRequest:
    """Return the request that asks `family` for the requested budget.

    `body` is a chat request without the fields that carried the budget; all other fields stay. A
    request without a budget stays as it is. `policy` is the system prompt of the level. It follows
    the client's own system text, which always stays whole.

    The client's own `chat_template_kwargs` win, with a note. So do its words, for a family that is
    switched by words.
    """
    requested = _requested_state(sampling)
    own_state = _state_in_body(family, body)
    state = own_state or requested or ("off" if family.default in ("off", "never") else "on")
    if requested is None:
        markup = _reply_markup(family, body, thinks=state == "on")
        return ShapedRequest(dict(body), markup, "native" if _switched_off(family, body, own_state) else None)
    notes: list[str] = []
    if own_state and own_state != requested:
        notes.append(f"thinking stays {own_state}: the request itself says so")
    if requested == "on" and family.default == "never":
        notes.append(f"{family.name} doesn't think in a block of its own: only the system prompt can ask")
    messages = body.get("messages") or [{}]
    off, prefill, note = _off_method(family, state, continues=messages[-1].get("role") == "assistant")
    if note:
        notes.append(note)
    if off == "prompt" and policy is None:
        policy = DIRECT_PROMPT
    switches = _switches(family, state, off, sampling)
    fields, field_notes = _fields(body, switches)
    shaped = {**body, **fields}
    if isinstance(shaped.get("messages"), list):
        shaped["messages"] = _messages(shaped["messages"], switches, policy)
    prefix = f"{family.open}\n{prefill}" if prefill and family.opened_by == "template" else prefill
    markup = _reply_markup(family, body, thinks=state == "on" or off in ("effort", "prompt"), prefill=prefill)
    return ShapedRequest(shaped, markup, off, (*notes, *field_notes), prefill, prefix)


def _requested_state(sampling: SamplingRequest) -> ThinkingState | None:
    if sampling.level is None and sampling.thinking_limit is None:
        return None
    return "off" if sampling.level == "off" or sampling.thinking_limit == 0 else "on"


def _state_in_body(family: Family, body: Mapping[str, Any]) -> ThinkingState | None:
    """Return the state that the client's own kwargs or words set; None: they set none."""
    kwargs = body.get("chat_template_kwargs") or {}
    return _state_in_kwargs(family, kwargs) or _state_in_words(family, body.get("messages") or ())


def _switched_off(family: Family, body: Mapping[str, Any], own_state: ThinkingState | None) -> bool:
    """Tell whether the client's own words switch thinking off.

    For a model of which nothing is known, the names count that many templates share.
    """
    kwargs = body.get("chat_template_kwargs") or {}
    common = kwargs.get("enable_thinking") is False or kwargs.get("thinking") is False
    return own_state == "off" or (family.globs == ("*",) and common)


def _state_in_kwargs(family: Family, kwargs: Mapping[str, Any]) -> ThinkingState | None:
    states: list[tuple[ThinkingState, Switch | None]] = [("off", family.off), ("on", family.on)]
    states += [("on", switch) for switch in family.levels.values()]
    for state, switch in states:
        if switch and any(kwargs.get(key) == value for key, value in switch.kwargs.items()):
            return state
    if family.trained_limit and kwargs.get(family.trained_limit.kwarg) is not None:
        return "on"  # the client's own limit, and not the one that means off
    return None


def _state_in_words(family: Family, messages: Sequence[Mapping[str, Any]]) -> ThinkingState | None:
    """Return the state that the last switch in the messages sets, for a family switched by words."""
    if not (family.on and family.off and family.on.system):
        return None
    state: ThinkingState | None = None
    for message in messages:
        if message.get("role") in (*_SYSTEM_ROLES, "user"):
            text = _message_text(message.get("content"))
            if _contains_line(text, family.on.system):
                state = "on"
            elif _contains_line(text, family.off.system):
                state = "off"
    return state


def _off_method(
    family: Family, state: ThinkingState, *, continues: bool
) -> tuple[OffMethod | None, str, str]:
    """Return how thinking is off, the prefill, and a note where the family has no switch.

    `continues`: the request ends in an assistant's turn, so the gateway can't write a prefill.
    """
    if state == "on":
        opening = family.opened_by == "gateway" and not continues
        return None, f"{family.open}\n" if opening else "", ""
    if family.off:
        return "native", "", ""
    if family.default in ("off", "never"):
        return "already", "", ""
    cannot = f"{family.name} has no switch to turn thinking off"
    if family.off_fallback == "effort":
        return "effort", "", f"{cannot}: lowest effort instead"
    if family.off_fallback == "prefill" and not continues:
        opening_tag = "" if family.opened_by == "template" else f"{family.open}\n"
        block = f"{opening_tag}{NO_THINKING}\n{family.close}\n\n"
        return "prefill", block, f"{cannot}: it continues from a finished block of thinking"
    return "prompt", "", f"{cannot}: only the system prompt asks for it"


def _switches(
    family: Family, state: ThinkingState, off: OffMethod | None, sampling: SamplingRequest
) -> list[Switch]:
    if off == "effort":
        return [family.levels["low"]]
    if state == "off":
        return [family.off] if family.off else []
    switches = [family.on, family.levels.get(_family_level(sampling))]
    if family.trained_limit and sampling.thinking_limit is not None and sampling.level != "max":
        switches.append(family.trained_limit.switch(sampling.thinking_limit))
    return [switch for switch in switches if switch and family.default != "never"]


def _family_level(sampling: SamplingRequest) -> str:
    """Return the name of a standard level.

    A number of tokens, or an operator's own level, gets the level whose default is next above it.
    """
    levels = {"minimal": 256, "low": 1024, "medium": 4096, "high": 16384}
    if sampling.level in (*levels, "max"):
        return sampling.level or ""
    tokens = sampling.thinking_limit
    return "" if tokens is None else next((name for name, cap in levels.items() if tokens <= cap), "high")


def _reply_markup(family: Family, body: Mapping[str, Any], *, thinks: bool, prefill: str = "") -> Markup:
    inside = thinks and (family.opened_by == "template" or (family.opened_by == "gateway" and prefill != ""))
    if body.get("continue_final_message") and body.get("messages"):  # the template opens no new turn
        begun = _message_text(body["messages"][-1].get("content"))
        inside = begun.rfind(family.open) > begun.rfind(family.close)
    return Markup(family.open, family.close, inside, family.answer)


def _fields(body: Mapping[str, Any], switches: Sequence[Switch]) -> tuple[dict[str, Any], list[str]]:
    """Return the request fields that the switches set, and notes on the client's values that stay."""
    kwargs = {key: value for switch in switches for key, value in switch.kwargs.items()}
    own = {k: v for k, v in (body.get("chat_template_kwargs") or {}).items() if v is not None}
    notes = [
        f"chat_template_kwargs.{key} keeps the request's own value"
        for key, value in kwargs.items()
        if key in own and own[key] != value
    ]
    fields: dict[str, Any] = {}
    if kwargs:
        fields["chat_template_kwargs"] = {**(body.get("chat_template_kwargs") or {}), **kwargs, **own}
    for switch in switches:
        fields.update(switch.fields)
    return fields, notes


def _messages(
    messages: Sequence[Mapping[str, Any]], switches: Sequence[Switch], policy: str | None
) -> list[dict[str, Any]]:
    """Return the messages with the switches' lines and the level's system prompt."""
    copies = [dict(message) for message in messages]
    user = next((m for m in reversed(copies) if m.get("role") == "user"), None)
    if user is not None:
        for switch in switches:
            _add_paragraph(user, switch.user)
    system = next((m for m in copies if m.get("role") in _SYSTEM_ROLES), None)
    top_lines = [switch.system for switch in switches if switch.system]
    has_system_text = system is not None or bool(policy)
    if system is None:
        if not top_lines and not policy:
            return copies
        system = {"role": "system", "content": ""}
        copies.insert(0, system)
    for line in top_lines:
        _add_paragraph(system, line, above=True)
    _add_paragraph(system, policy or "")
    if has_system_text:
        for switch in switches:
            _add_paragraph(system, switch.beside_system)
    return copies


def _add_paragraph(message: dict[str, Any], line: str, *, above: bool = False) -> None:
    """Add a paragraph to a message, unless it is there already. Content is text or a list of parts."""
    if not line or _contains_line(_message_text(message.get("content")), line):
        return
    content = message.get("content")
    if isinstance(content, list):
        part = {"type": "text", "text": line}
        message["content"] = [part, *content] if above else [*content, part]
    elif content:
        message["content"] = f"{line}\n\n{content}" if above else f"{content}\n\n{line}"
    else:
        message["content"] = line


def _message_text(content: Any) -> str:
    """Return a message's text, its parts joined."""
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _contains_line(text: str, line: str) -> bool:
    """Return whether `line` stands in `text` by itself: "/think" is no part of "</think>" or of a path."""
    return re.search(rf"(?<![\w<./]){re.escape(line)}(?![\w>/])", text) is not None


def strip_thinking(messages: Sequence[Mapping[str, Any]], family: Family) -> list[dict[str, Any]]:
    """Return the messages without the thinking of earlier turns that the family's history drops.

    An assistant's message carries thinking as `reasoning_content` or `reasoning`, or between the
    family's tags in its content. If the last message is the assistant's, it stays as it is,
    because the model continues it.
    """
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    first_kept = {"drop": len(messages) - 1, "loop": users[-1] if users else -1, "keep": -1}[family.history]
    return [
        dict(message)
        if message.get("role") != "assistant"
        else _without_thinking(message, family)
        if i < first_kept
        else _with_thinking(message)
        for i, message in enumerate(messages)
    ]


def _with_thinking(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with its thinking under both names, because engines differ in which they read."""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(thinking, str) or not thinking:
        return dict(message)
    return {**message, "reasoning_content": thinking, "reasoning": thinking}


def _without_thinking(message: Mapping[str, Any], family: Family) -> dict[str, Any]:
    stripped = {key: value for key, value in message.items() if key not in ("reasoning_content", "reasoning")}
    content = stripped.get("content")
    if isinstance(content, str):
        stripped["content"] = _strip_tags(content, family)
    elif isinstance(content, list):
        stripped["content"] = [
            {**part, "text": _strip_tags(part["text"], family)} if isinstance(part.get("text"), str) else part
            for part in content
        ]
    return stripped


def _strip_tags(text: str, family: Family) -> str:
    """Return the text outside the tags. A lone closing tag ends thinking that a template opened."""
    opening, closing = text.find(family.open), text.find(family.close)
    if opening < 0 and closing < 0:
        return text
    lone_closing = closing >= 0 and not 0 <= opening < closing
    opened = lone_closing and family.opened_by == "template" and text[:closing].count("`") % 2 == 0
    return split_thinking(text, Markup(family.open, family.close, opened))[1]
