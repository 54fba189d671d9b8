"""Turns one client's request into the one sent upstream: family switch, system policy, history.

Pure: nothing here changes what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from policies.families import Family, Switch
from policies.thinking import Markup
from policies.types import Budget

__all__ = ["NO_THINKING", "Off", "Shaped", "shape", "strip_thinking"]

NO_THINKING = "Okay, I think I have finished thinking."
"""What stands in the closed block that is written for a model that can't be switched off.

Source: "Reasoning Models Can Be Effective Without Thinking" (arXiv 2504.09858).
"""

Off = Literal["native", "already", "prefill", "effort", "prompt"]
State = Literal["on", "off"]


@dataclass(frozen=True, slots=True)
class Shaped:
    """One request, ready for an engine.

    `body` is what to send. `prefill` is what the gateway writes into the assistant's turn
    before the model does, right after the rendered prompt; where only a chat prefix can be
    sent, it is `prefix`, which begins with what the template would have written itself.
    `markup` is that of the text after all this. `off` says how thinking was switched off
    (None: it wasn't asked to be): by the family's own switch, not at all because the model
    doesn't think anyway, by a prefilled closed block, by the lowest effort, or by the
    prompt alone. `notes` tell people what was done otherwise than asked.
    """

    body: dict[str, Any]
    markup: Markup
    off: Off | None = None
    notes: tuple[str, ...] = ()
    prefill: str = ""
    prefix: str = ""


def shape(family: Family, body: Mapping[str, Any], budget: Budget, policy: str | None) -> Shaped:
    """The request for `budget`; where nothing was asked, the very same request.

    `policy` is the system prompt chosen for the level. It comes after the client's own
    system text, which is always kept whole. `body` has been freed of the fields by which
    the client said its budget. Values in the client's own `chat_template_kwargs` win.
    """
    new = deepcopy(dict(body))
    asked = _asked(budget)
    claimed = _claimed(family, body)
    state: State = claimed or asked or ("on" if family.default in ("on", "always") else "off")
    if asked is None:
        return Shaped(new, _markup(family, state))
    notes: list[str] = []
    if claimed and claimed != asked:
        notes.append(f"the request's own chat_template_kwargs keep thinking {claimed}")
    switches, off, prefill = _plan(family, state, budget, notes)
    _apply(new, switches, policy, notes)
    markup = _markup(family, state, prefill)
    prefix = family.open + "\n" + prefill if family.opens == "template" and prefill else prefill
    return Shaped(new, markup, off if asked == "off" else None, tuple(notes), prefill, prefix)


def strip_thinking(messages: Sequence[Mapping[str, Any]], family: Family) -> list[dict[str, Any]]:
    """The messages with earlier turns' thinking dropped or kept as the family wants it."""
    return [dict(message) for message in messages]


def _asked(budget: Budget) -> State | None:
    if budget.effort is None and budget.thinking_tokens is None:
        return None
    return "off" if budget.effort == "off" or budget.thinking_tokens == 0 else "on"


def _claimed(family: Family, body: Mapping[str, Any]) -> State | None:
    """What the client's own template kwargs say."""
    kwargs = body.get("chat_template_kwargs")
    if not isinstance(kwargs, Mapping):
        return None
    states: tuple[tuple[State, Switch | None], ...] = (("on", family.on), ("off", family.off))
    for state, switch in states:
        if switch and any(kwargs.get(key) == value for key, value in switch.kwargs.items()):
            return state
    return None


def _markup(family: Family, state: State, prefill: str = "") -> Markup:
    closed = prefill and family.close in prefill
    return Markup(family.open, family.close, family.markup.opened and state == "on" and not closed)


def _plan(
    family: Family, state: State, budget: Budget, notes: list[str]
) -> tuple[list[Switch], Off | None, str]:
    """The switches, how thinking is off, and the prefill."""
    if state == "on":
        switches = [s for s in (family.on, family.efforts.get(budget.effort or "")) if s]
        if family.limit and budget.thinking_tokens is not None and budget.effort != "max":
            switches.append(family.limit.switch(budget.thinking_tokens))
        return switches, None, family.open + "\n" if family.opens == "gateway" else ""
    if family.off:
        return [family.off], "native", ""
    if family.default in ("never", "off"):
        return [], "already", ""
    notes.append(f"{family.name} has no switch for thinking")
    if family.without == "prefill":
        start = "" if family.opens == "template" else family.open + "\n"
        return [], "prefill", f"{start}{NO_THINKING}\n{family.close}\n\n"
    if family.without == "effort":
        return [family.efforts["low"]], "effort", ""
    return [], "prompt", ""


def _apply(body: dict[str, Any], switches: Sequence[Switch], policy: str | None, notes: list[str]) -> None:
    """Writes the switches and the policy into `body`, which is the caller's own copy."""
    kwargs = {key: value for switch in switches for key, value in switch.kwargs.items()}
    if kwargs:
        body["chat_template_kwargs"] = {**kwargs, **(body.get("chat_template_kwargs") or {})}
    for switch in switches:
        body.update(switch.fields)
