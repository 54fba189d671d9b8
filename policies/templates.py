"""What a checkpoint's own chat template tells of its family: its switch, its tags, who opens the block.

A template is believed by what it renders, not by how it is written: conditions and defaults
take too many forms to read off. So a few small requests, the probes, are rendered and their
prompts compared. Who renders is the caller's affair: an engine that offers it (llama.cpp's
`/apply-template`, vLLM's `/tokenize`), or jinja2 where that is installed.
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

__all__ = ["probes", "refine", "refine_rendered", "render"]

_QUESTION = "How many moons has Mars?"
_KWARGS = ("enable_thinking", "thinking")


def probes(family: Family) -> dict[str, dict[str, Any]]:
    """Requests to render, by name: nothing said, the family's own on and off, and the usual kwargs.

    None at all for a family of which a template can tell nothing: one that doesn't think by itself.
    """
    if _untold(family):
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
    """The family as its template has it, by the probes' prompts; probes that are missing tell nothing.

    A switch that changes nothing in the prompt is none: it is replaced by one that does, or
    taken away. Where the row and the prompts say the same, the very same row comes back.
    """
    if _untold(family) or "default" not in prompts:
        return family
    default, on, off = (prompts.get(name, "") for name in ("default", "on", "off"))
    if not (family.off and on and off and on != off):
        works = [name for name in _KWARGS if _differ(prompts, name)]
        own = [name for name in works if family.off and name in family.off.kwargs]
        if works and not own:
            family = replace(
                family, on=Switch(kwargs={works[0]: True}), off=Switch(kwargs={works[0]: False}), default="on"
            )
            on, off = prompts[f"{works[0]}=True"], prompts[f"{works[0]}=False"]
        elif family.off and family.off.kwargs and on:
            family = replace(family, on=None, off=None, default="always")
    if family.off and on and off:
        family = replace(family, default=_default(family, default, on, off))
    if not family.off:
        on = default
    opening = next((row for row in (family, *FAMILIES) if on.rstrip().endswith(row.open)), None)
    if opening is None:
        return replace(family, opens="model") if on else family
    family = replace(family, open=opening.open, close=opening.close, opens="template")
    return family if family.off else replace(family, default="always", without=_without(family))


def refine(family: Family, template: str) -> Family:
    """The family as a template's text has it; without jinja2 only its tags are read."""
    if family.open not in template and family.close not in template:
        row = next((row for row in FAMILIES if row.open in template and row.close in template), family)
        family = replace(family, open=row.open, close=row.close)
    prompts = {name: render(template, body) for name, body in probes(family).items()}
    return refine_rendered(family, {name: prompt for name, prompt in prompts.items() if prompt is not None})


def render(template: str, body: Mapping[str, Any]) -> str | None:
    """A chat request's prompt, rendered in jinja2's sandbox; None without jinja2 or where it fails.

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


def _untold(family: Family) -> bool:
    return family.default == "never" or family.opens == "gateway"


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _without(family: Family) -> Literal["prefill", "effort", "prompt"]:
    """A block that the template opens, the gateway can close: surer than asking for it."""
    return "prefill" if family.without == "prompt" else family.without


def _differ(prompts: Mapping[str, str], kwarg: str) -> bool:
    on, off = prompts.get(f"{kwarg}=True"), prompts.get(f"{kwarg}=False")
    return on is not None and off is not None and on != off


def _default(family: Family, default: str, on: str, off: str) -> Literal["on", "off", "always", "never"]:
    """What a prompt without a switch amounts to, by its end behind the question, or else as a whole.

    A prompt that neither opens nor closes anything, where "on" does open, leaves it to the model.
    """
    ends = [prompt.rpartition(_QUESTION)[2] for prompt in (default, on, off)]
    said, if_on, if_off = ends if ends[1] != ends[2] else (default, on, off)
    if said == if_on:
        return "on"
    opens = if_on.rstrip().endswith(family.open)
    return "off" if said == if_off or (opens and not said.rstrip().endswith(family.open)) else family.default
