"""Prompts as the gateway would send them: the same policies shape the prompts of training and of serving.

A model that is trained on other prompts than it is served with loses what it learned (open-r1#473). So
`policies.shaping` and the model's own chat template write every prompt here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from policies.families import Family
from policies.prompts import LEVELS, Level, policy_prompt
from policies.shaping import shape
from policies.thinking import Markup, split_thinking
from policies.types import SamplingRequest
from training.types import Completion, Problem

__all__ = ["Example", "Prompt", "Prompter", "Tokenizer"]


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that training needs."""

    eos_token_id: int

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> Any:
        """Render a conversation to text."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Return the ids of a text."""

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Return the text of ids."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text that a model continues, its ids, and how the continuation is marked up."""

    text: str
    ids: tuple[int, ...]
    markup: Markup
    budget: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the ids of the reply to imitate; only the reply counts for the loss."""

    prompt: Prompt
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompter:
    """Renders problems for one model.

    `levels` are the budgets by name, as the gateway is configured for the model. `extra_stop_ids` are tokens
    that end a reply, in addition to the tokenizer's own end-of-turn token.
    """

    tokenizer: Tokenizer
    family: Family
    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    extra_stop_ids: Sequence[int] = ()

    @property
    def stop_ids(self) -> frozenset[int]:
        """All tokens that end a reply."""
        return frozenset((self.tokenizer.eos_token_id, *self.extra_stop_ids))

    def prompt(self, problem: Problem, budget: str | None) -> Prompt:
        """Return the prompt that asks a problem at a level; None asks as a client without a budget does."""
        body = {"messages": [{"role": "user", "content": problem.question}]}
        level = self.levels[budget] if budget else None
        teach = self.family.off_fallback == "prompt"
        policy = policy_prompt(level, self.family.markup, teach=teach) if level else None
        sampling = SamplingRequest(budget, level.tokens if level else None)
        shaped = shape(self.family, body, sampling, policy)
        kwargs = shaped.body.get("chat_template_kwargs", {})
        text = self.tokenizer.apply_chat_template(
            shaped.body["messages"], tokenize=False, add_generation_prompt=True, **kwargs
        )
        text += shaped.prefill
        return Prompt(
            text, tuple(self.tokenizer.encode(text, add_special_tokens=False)), shaped.markup, budget
        )

    def target(self, prompt: Prompt, thinking: str, answer: str) -> tuple[int, ...]:
        """Return the ids of a reply to imitate, from the prompt's end to the reply's end-of-turn token.

        The whole text is encoded at once and cut where the prompt's ids end, so that the seam is tokenized as
        it is in serving. Raises ValueError where a token spans the seam.
        """
        markup = prompt.markup
        block = f"{markup.close}\n\n" if markup.opened else ""  # the template opened it: close it
        if thinking:
            opening = "" if markup.opened else f"{markup.open}\n"
            block = f"{opening}{thinking}\n{markup.close}\n\n"
        ids = tuple(self.tokenizer.encode(prompt.text + block + answer, add_special_tokens=False))
        if ids[: len(prompt.ids)] != prompt.ids:
            raise ValueError(f"the reply {block + answer!r} merges with the prompt's last token")
        return (*ids[len(prompt.ids) :], self.tokenizer.eos_token_id)

    def completion(self, prompt: Prompt, ids: Sequence[int]) -> Completion:
        """Return a sampled reply, split; `ids` may end with a token that ends a reply."""
        finished = bool(ids) and ids[-1] in self.stop_ids
        own = tuple(ids[:-1] if finished else ids)
        text = self.tokenizer.decode(own, skip_special_tokens=False)
        thinking, answer = split_thinking(text, prompt.markup)
        thinking_tokens = len(self.tokenizer.encode(thinking, add_special_tokens=False)) if thinking else 0
        return Completion(text, own, thinking, answer, thinking_tokens, finished, prompt.budget)
