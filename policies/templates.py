"""Learns about a family from a checkpoint's own chat template: its switch, its tags, who opens the block.

A template is judged by what it renders, not by how it is written: conditions and defaults take
too many forms to read. So a few small probe requests are rendered, and their prompts compared. The
caller decides who renders: an engine that offers it (llama.cpp's `/apply-template`, vLLM's
`/tokenize`), or jinja2 where it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import Any, Literal, NoReturn

from policies.families import FAMILIES, Family, Switch
from policies.shaping import shape
from policies.types import SamplingRequest

__all__ = ["probe_requests", "refine", "refine_rendered", "render"]

_QUESTION = "How many moons has Mars?"
_KWARGS = ("enable_thinking", "thinking")


def probe_requests(family: Family) -> dict[str, dict[str, Any]]:
    """Return the requests to render, by name: no switch, the family's on and off, the usual kwargs.

    There are none for a family that does not think by itself: its template can tell nothing.
    """
    if _is_fixed(family):
        return {}
    body = {"messages": [{"role": "user", "content": _QUESTION}]}
    on = shape(family, body, SamplingRequest(level="high"), None).body
    off = shape(family, body, SamplingRequest(level="off"), None).body
    requests = {"default": body, "on": on, "off": off}
    for name in _KWARGS:
        for value in (True, False):
            requests[f"{name}={value}"] = {**body, "chat_template_kwargs": {name: value}}
    return requests


def refine_rendered(family: Family, prompts: Mapping[str, str]) -> Family:
    """Return the family as the probes' prompts show it. A missing prompt tells nothing.

    A switch that does not change the prompt is replaced by one that does, or removed. If the
    prompts confirm the row, the same row comes back.
    """
    if _is_fixed(family) or "default" not in prompts:
        return family
    family, on, off = _with_working_switch(family, prompts)
    default = prompts["default"]
    if family.off and on and off:
        family = replace(family, default=_default_state(family, default, on, off))
    return _with_opening_tag(family, on if family.off else default)


def _with_working_switch(family: Family, prompts: Mapping[str, str]) -> tuple[Family, str, str]:
    """Return the family with a switch that changes the prompt, and the prompts with it on and off."""
    on, off = prompts.get("on", ""), prompts.get("off", "")
    if family.off and on and off and on != off:
        return family, on, off
    working = [name for name in _KWARGS if _is_switch(prompts, name)]
    own_works = family.off is not None and any(name in family.off.kwargs for name in working)
    if working and not own_works:
        name = working[0]
        switched = replace(
            family, on=Switch(kwargs={name: True}), off=Switch(kwargs={name: False}), default="on"
        )
        return switched, prompts[f"{name}=True"], prompts[f"{name}=False"]
    if family.off and family.off.kwargs and on:
        family = replace(family, on=None, off=None, default="always")
    return family, on, off


def _with_opening_tag(family: Family, prompt: str) -> Family:
    """Return the family with who opens the block, and with which tags, by the end of a thinking prompt."""
    row = next((row for row in (family, *FAMILIES) if prompt.rstrip().endswith(row.open)), None)
    if row is None:
        return replace(family, opened_by="model") if prompt else family
    family = replace(family, open=row.open, close=row.close, opened_by="template")
    return family if family.off else replace(family, default="always", off_fallback=_off_fallback(family))


def refine(family: Family, template: str) -> Family:
    """Return the family as a template's text shows it. Without jinja2 only its tags are read."""
    if family.open not in template and family.close not in template:
        row = next((row for row in FAMILIES if row.open in template and row.close in template), family)
        family = replace(family, open=row.open, close=row.close)
    prompts = {name: render(template, body) for name, body in probe_requests(family).items()}
    return refine_rendered(family, {name: prompt for name, prompt in prompts.items() if prompt is not None})


def render(template: str, body: Mapping[str, Any]) -> str | None:
    """Return a chat request's prompt, rendered in jinja2's sandbox; None without jinja2 or on failure.

    The environment is the one that transformers gives to chat templates.
    """
    try:
        sandbox, jinja2 = import_module("jinja2.sandbox"), import_module("jinja2")
    except ImportError:
        return None
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals.update(
        raise_exception=_raise, strftime_now=lambda form: datetime.now().astimezone().strftime(form)
    )
    variables = {"reasoning_effort": body["reasoning_effort"]} if "reasoning_effort" in body else {}
    variables |= body.get("chat_template_kwargs") or {}
    try:
        text = environment.from_string(template).render(
            messages=body["messages"], add_generation_prompt=True, bos_token="", eos_token="", **variables
        )
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    return str(text)


def _is_fixed(family: Family) -> bool:
    """Return whether the family does not think by itself, so that a template can tell nothing."""
    return family.default == "never" or family.opened_by == "gateway"


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _off_fallback(family: Family) -> Literal["prefill", "effort", "prompt"]:
    """Return a closed block in place of a prompt: the gateway can close a block that the template opens."""
    return "prefill" if family.off_fallback == "prompt" else family.off_fallback


def _is_switch(prompts: Mapping[str, str], kwarg: str) -> bool:
    """Return whether the kwarg changes the prompt."""
    on, off = prompts.get(f"{kwarg}=True"), prompts.get(f"{kwarg}=False")
    return on is not None and off is not None and on != off


def _default_state(
    family: Family, default: str, on: str, off: str
) -> Literal["on", "off", "always", "never"]:
    """Return the state without a switch, by the prompt's end behind the question, or else by all of it.

    Where "on" opens a block and the default prompt does not, the model decides; that counts as off.
    """
    ends = [prompt.rpartition(_QUESTION)[2] for prompt in (default, on, off)]
    by_default, if_on, if_off = ends if ends[1] != ends[2] else (default, on, off)
    if by_default == if_on:
        return "on"
    opens = if_on.rstrip().endswith(family.open)
    is_off = by_default == if_off or (opens and not by_default.rstrip().endswith(family.open))
    return "off" if is_off else family.default
