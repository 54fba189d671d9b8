"""Model families: how each one's thinking is switched, limited, marked up and carried on.

One row of `FAMILIES` is one family; the first row whose glob fits wins. The facts come
from the chat templates and model cards named in each row's `source`. A checkpoint's own
template beats its row: see `policies.templates.refine`.

To add a family, add one row (above `generic`), and its requests to the table at the head
of `tests/policies/test_families.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from policies.thinking import Markup

__all__ = ["FAMILIES", "Family", "Limit", "Switch", "find_family"]


@dataclass(frozen=True, slots=True)
class Switch:
    """What a request needs so that a model is in one state.

    `kwargs` go into `chat_template_kwargs`, `fields` into the request itself, `system` is
    text for the system message, `user` text for the end of the last user message.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A thinking limit that the family was trained to keep, roughly; the gateway counts all the same.

    Either a template kwarg or a sentence with `{tokens}` at the end of the last user
    message. `steps` are the numbers of tokens it was trained on, in rising order.
    """

    steps: tuple[int, ...]
    kwarg: str = ""
    sentence: str = ""

    def switch(self, tokens: int) -> Switch:
        """The largest step within `tokens`, or the smallest step; nothing beyond the largest."""
        if tokens > self.steps[-1]:
            return Switch()
        step = max((s for s in self.steps if s <= tokens), default=self.steps[0])
        kwargs = {self.kwarg: step} if self.kwarg else {}
        return Switch(kwargs=kwargs, user=self.sentence.format(tokens=step))


@dataclass(frozen=True, slots=True)
class Family:
    """One row.

    - `globs`: lower-case patterns for the served name or the base model, either whole or
      from its last "/".
    - `open`, `close`: the tags around thinking; `opens`: who writes the opening one while
      thinking is on: the model, the chat template, or nobody (so that the gateway has to).
    - `default`: what the model does when nothing is said; "never" and "always" can't be changed.
    - `on`, `off`: what brings it into that state, None where nothing does or need be sent.
    - `without`: what stands in for a missing `off`: a closed block that the gateway writes
      for the model, the lowest effort, or only the system prompt.
    - `efforts`: level -> what asks for it.
    - `limit`: a limit of the family's own.
    - `answer`: what the answer is wrapped in.
    - `history`: thinking of earlier turns that a client sends back is dropped, kept within
      the tool calls of the current turn ("loop"), or kept.
    """

    name: str
    globs: tuple[str, ...]
    source: str
    open: str = "<think>"
    close: str = "</think>"
    opens: Literal["model", "template", "gateway"] = "model"
    default: Literal["on", "off", "always", "never"] = "always"
    on: Switch | None = None
    off: Switch | None = None
    without: Literal["prefill", "effort", "prompt"] = "prefill"
    efforts: Mapping[str, Switch] = field(default_factory=dict)
    limit: Limit | None = None
    answer: tuple[str, str] | None = None
    history: Literal["drop", "loop", "keep"] = "drop"

    @property
    def markup(self) -> Markup:
        """The markup of a reply while thinking is on."""
        return Markup(self.open, self.close, self.opens != "model")


def _kwarg(name: str) -> dict[str, Any]:
    """The commonest switch: one boolean template kwarg."""
    return {"on": Switch(kwargs={name: True}), "off": Switch(kwargs={name: False})}


FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen3",
        ("*qwen3-*",),
        "template of Qwen3-0.6B",
        default="on",
        **_kwarg("enable_thinking"),
    ),
    Family("generic", ("*",), "no facts: anything not named above", without="prompt"),
)


def find_family(model: str, *, base_model: str | None = None, explicit: str | None = None) -> Family:
    """The family of a model: `explicit` by name, else by the served name, else by its base model.

    A served name that only fits the generic row gives the base model (`root` in the engine's
    model list) a try. Raises ValueError, naming what is allowed, where `explicit` is no family.
    """
    if explicit is not None:
        for family in FAMILIES:
            if family.name == explicit:
                return family
        allowed = ", ".join(family.name for family in FAMILIES)
        raise ValueError(f"unknown family {explicit!r}; allowed: {allowed}")
    for name in (model, base_model):
        family = _by_glob(name) if name else FAMILIES[-1]
        if family is not FAMILIES[-1]:
            return family
    return FAMILIES[-1]


def _by_glob(model: str) -> Family:
    name = model.lower()
    names = (name, name.rsplit("/", 1)[-1])
    return next(f for f in FAMILIES if any(fnmatchcase(n, glob) for glob in f.globs for n in names))
