"""Turns a client's request into the one sent upstream: family switch, system policy, earlier thinking.

Pure: nothing here changes what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from policies.families import Family, Switch
from policies.thinking import Markup, split_thinking
from policies.types import SamplingRequest

__all__ = ["DIRECT", "NO_THINKING", "Off", "Shaped", "shape", "strip_thinking"]

NO_THINKING = "Okay, I think I have finished thinking."
"""What stands in the block that the gateway writes for a model that can't be switched off.

Source: "Reasoning Models Can Be Effective Without Thinking" (arXiv 2504.09858).
"""

DIRECT = "Answer directly, without thinking first."
"""Asked of a model for which nothing else is known, where no policy says it already."""

Off = Literal["native", "already", "prefill", "effort", "prompt"]
State = Literal["on", "off"]
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Shaped:
    """One request, ready for an engine.

    `body` is what to send. `prefill` is the beginning of the assistant's turn that the
    gateway writes itself, right behind the rendered prompt; where only a chat prefix can
    be sent, `prefix` is that turn from its first character, with the opening tag that the
    template would have written. `markup` is that of the text which follows all this.

    `off` says how thinking is off: by the family's own switch ("native"), because the
    model doesn't think unless told to ("already"), by a closed block in `prefill`, by the
    lowest effort, or only by the prompt; None while it is on or nothing was asked.
    `notes` say in words what was done otherwise than asked.
    """

    body: dict[str, Any]
    markup: Markup
    off: Off | None = None
    notes: tuple[str, ...] = ()
    prefill: str = ""
    prefix: str = ""


def shape(family: Family, body: Mapping[str, Any], sampling: SamplingRequest, policy: str | None) -> Shaped:
    """The request that asks `family` for `budget`; where nothing was asked, the very same request.

    `policy` is the system prompt of the level; it follows the client's own system text,
    which always stays whole. What the request itself says in `chat_template_kwargs`, or in
    the words of a family that is switched by words, wins, with a note. `body` is a chat
    request without the fields that carried the budget; every other field stays as it is.
    """
    new = dict(body)
    asked = _asked(sampling)
    claimed = _claimed(family, body)
    state = claimed or asked or ("off" if family.default in ("off", "never") else "on")
    if asked is None:
        return Shaped(new, _markup(family, body, thinks=state == "on"))
    notes: list[str] = []
    if claimed and claimed != asked:
        notes.append(f"thinking stays {claimed}: the request itself says so")
    if asked == "on" and family.default == "never":
        notes.append(f"{family.name} doesn't think in a block of its own: only the system prompt can ask")
    messages = new.get("messages") or [{}]
    off, prefill, note = _stand_in(family, state, continues=messages[-1].get("role") == "assistant")
    if note:
        notes.append(note)
    if off == "prompt" and policy is None:
        policy = DIRECT
    _apply(new, _switches(family, state, off, sampling), policy, notes)
    prefix = f"{family.open}\n{prefill}" if prefill and family.opens == "template" else prefill
    markup = _markup(family, body, thinks=state == "on" or off in ("effort", "prompt"), prefill=prefill)
    return Shaped(new, markup, off, tuple(notes), prefill, prefix)


def _asked(sampling: SamplingRequest) -> State | None:
    if sampling.level is None and sampling.thinking_limit is None:
        return None
    return "off" if sampling.level == "off" or sampling.thinking_limit == 0 else "on"


def _claimed(family: Family, body: Mapping[str, Any]) -> State | None:
    """What the request itself says: by a template kwarg, or by a family's words (the latest counts)."""
    own = body.get("chat_template_kwargs") or {}
    states: list[tuple[State, Switch | None]] = [("off", family.off), ("on", family.on)]
    states += [("on", switch) for switch in family.efforts.values()]
    for state, switch in states:
        if switch and any(own.get(key) == value for key, value in switch.kwargs.items()):
            return state
    if family.limit and own.get(family.limit.kwarg) is not None:
        return "on"  # a limit of the client's own that isn't the one that means off
    if not (family.on and family.off and family.on.system):
        return None
    claimed: State | None = None
    for message in body.get("messages") or ():
        if message.get("role") in (*_SYSTEM, "user"):
            text = _text(message.get("content"))
            if _says(text, family.on.system):
                claimed = "on"
            elif _says(text, family.off.system):
                claimed = "off"
    return claimed


def _stand_in(family: Family, state: State, *, continues: bool) -> tuple[Off | None, str, str]:
    """How thinking is off, what the gateway writes first, and a note where no switch does it.

    `continues`: the request ends in a turn of the assistant's, so that nothing can be written first.
    """
    if state == "on":
        opening = family.opens == "gateway" and not continues
        return None, f"{family.open}\n" if opening else "", ""
    if family.off:
        return "native", "", ""
    if family.default in ("off", "never"):
        return "already", "", ""
    cannot = f"{family.name} has no switch to turn thinking off"
    if family.without == "effort":
        return "effort", "", f"{cannot}: lowest effort instead"
    if family.without == "prefill" and not continues:
        opening_tag = "" if family.opens == "template" else f"{family.open}\n"
        block = f"{opening_tag}{NO_THINKING}\n{family.close}\n\n"
        return "prefill", block, f"{cannot}: it continues from a finished block of thinking"
    return "prompt", "", f"{cannot}: it is only asked to in the system prompt"


def _switches(family: Family, state: State, off: Off | None, sampling: SamplingRequest) -> list[Switch]:
    if off == "effort":
        return [family.efforts["low"]]
    if state == "off":
        return [family.off] if family.off else []
    switches = [family.on, family.efforts.get(_level(sampling))]
    if family.limit and sampling.thinking_limit is not None and sampling.level != "max":
        switches.append(family.limit.switch(sampling.thinking_limit))
    return [switch for switch in switches if switch and family.default != "never"]


def _level(sampling: SamplingRequest) -> str:
    """The level's name; for a number, or a level of one's own, the level whose default is next above."""
    levels = {"minimal": 256, "low": 1024, "medium": 4096, "high": 16384}
    if sampling.level in (*levels, "max"):
        return sampling.level or ""
    tokens = sampling.thinking_limit
    return "" if tokens is None else next((name for name, most in levels.items() if tokens <= most), "high")


def _markup(family: Family, body: Mapping[str, Any], *, thinks: bool, prefill: str = "") -> Markup:
    inside = thinks and (family.opens == "template" or (family.opens == "gateway" and prefill != ""))
    if body.get("continue_final_message") and body.get("messages"):  # the template opens no new turn
        begun = _text(body["messages"][-1].get("content"))
        inside = begun.rfind(family.open) > begun.rfind(family.close)
    return Markup(family.open, family.close, inside, family.answer)


def _apply(body: dict[str, Any], switches: Sequence[Switch], policy: str | None, notes: list[str]) -> None:
    """Writes switches and policy into `body`, a shallow copy; messages are replaced, never changed."""
    kwargs = {key: value for switch in switches for key, value in switch.kwargs.items()}
    own = body.get("chat_template_kwargs") or {}
    for key in kwargs.keys() & own.keys():
        if own[key] is not None and own[key] != kwargs[key]:
            notes.append(f"chat_template_kwargs.{key} keeps the request's own value")
    if kwargs:
        body["chat_template_kwargs"] = {**own, **{k: v for k, v in kwargs.items() if own.get(k) is None}}
    for switch in switches:
        body.update(switch.fields)
    if not isinstance(body.get("messages"), list):
        return
    messages = body["messages"] = [dict(message) for message in body["messages"]]
    user = next((m for m in reversed(messages) if m.get("role") == "user"), None)
    for switch in switches:
        _join(user, switch.user)
    # A developer's message is where OpenAI's newer models take what others take from the system.
    system = next((m for m in messages if m.get("role") in _SYSTEM), None)
    above = [switch.system for switch in switches if switch.system]
    beside = [switch.beside for switch in switches if system is not None or policy]
    if system is None and (above or policy):
        system = {"role": "system", "content": ""}
        messages.insert(0, system)
    for line in above:
        _join(system, line, above=True)
    for line in [policy or "", *beside]:
        _join(system, line)


def _join(message: dict[str, Any] | None, line: str, *, above: bool = False) -> None:
    """Adds a paragraph to a message unless it has it; content may be text or a list of parts."""
    if message is None or not line or _says(_text(message.get("content")), line):
        return
    content = message.get("content")
    if isinstance(content, list):
        part = {"type": "text", "text": line}
        message["content"] = [part, *content] if above else [*content, part]
    elif content:
        message["content"] = f"{line}\n\n{content}" if above else f"{content}\n\n{line}"
    else:
        message["content"] = line


def _text(content: Any) -> str:
    """A message's text, its parts joined."""
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _says(text: str, line: str) -> bool:
    """Whether `line` stands in `text` by itself: "/think" is no part of "</think>" or of a path."""
    return re.search(rf"(?<![\w<./]){re.escape(line)}(?![\w>/])", text) is not None


def strip_thinking(messages: Sequence[Mapping[str, Any]], family: Family) -> list[dict[str, Any]]:
    """The messages without the thinking of earlier turns, as far as the family wants it gone.

    Thinking is what an assistant's message carries as `reasoning_content` or `reasoning`,
    or between the family's tags in its content. A last message of the assistant's stays as
    it is: it is there to be continued.
    """
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    kept_from = {"drop": len(messages) - 1, "loop": users[-1] if users else -1, "keep": -1}[family.history]
    return [
        dict(message)
        if message.get("role") != "assistant"
        else _without_thinking(message, family)
        if i < kept_from
        else _with_thinking(message)
        for i, message in enumerate(messages)
    ]


def _with_thinking(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its thinking under both names: engines differ in which one they read."""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(thinking, str) or not thinking:
        return dict(message)
    return {**message, "reasoning_content": thinking, "reasoning": thinking}


def _without_thinking(message: Mapping[str, Any], family: Family) -> dict[str, Any]:
    new = {key: value for key, value in message.items() if key not in ("reasoning_content", "reasoning")}
    content = new.get("content")
    if isinstance(content, str):
        new["content"] = _answer(content, family)
    elif isinstance(content, list):
        new["content"] = [
            {**part, "text": _answer(part["text"], family)} if isinstance(part.get("text"), str) else part
            for part in content
        ]
    return new


def _answer(text: str, family: Family) -> str:
    """The text outside the tags; a closing tag alone ends thinking that a template had opened."""
    opening, closing = text.find(family.open), text.find(family.close)
    if opening < 0 and closing < 0:
        return text
    alone = closing >= 0 and not 0 <= opening < closing
    opened = alone and family.opens == "template" and text[:closing].count("`") % 2 == 0
    return split_thinking(text, Markup(family.open, family.close, opened))[1]
