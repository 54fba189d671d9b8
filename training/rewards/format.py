"""The format reward: whether a reply has the shape that serving can split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.thinking import Markup
from training.types import Completion, Problem

__all__ = ["Format", "answers_at_once", "thinks_once"]


@dataclass(frozen=True, slots=True)
class Format:
    """1.0 for a well-formed reply, else 0.0; DeepSeek-R1's format reward (arXiv:2501.12948), stricter.

    With a budget, or without one on a reasoning problem, a reply is one thinking block and then an answer
    (see `thinks_once`). With the budget "off" it has no block at all. Without a budget, a general problem
    allows both shapes. A truncated reply is not well-formed.
    """

    markup: Markup = Markup()
    off: str = "off"

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        return [float(reply.finished and self._is_well_formed(problem, reply)) for reply in completions]

    def _is_well_formed(self, problem: Problem, completion: Completion) -> bool:
        if completion.budget == self.off:
            return answers_at_once(completion.text, self.markup)
        if thinks_once(completion.text, self.markup):
            return True
        either = problem.general and completion.budget is None
        return either and answers_at_once(completion.text, self.markup)


def thinks_once(text: str, markup: Markup) -> bool:
    """Whether the text is one thinking block with a word in it, closed once, and then an answer.

    Tags count wherever they stand, in code too: a reply that a strict reader could split in another way is
    not well-formed. Where the template opens the block, the model must not open it again.
    """
    opening = "" if markup.opened else markup.open
    if text.count(markup.open) != bool(opening) or text.count(markup.close) != 1:
        return False
    if not text.lstrip().startswith(opening):
        return False
    thinking, _, answer = text.partition(markup.close)
    thinking = thinking.replace(markup.open, "", 1)
    return any(map(str.isalnum, thinking)) and _has_answer(answer, markup)


def answers_at_once(text: str, markup: Markup) -> bool:
    """Whether the text is only an answer; a block that the template opened must be closed at once."""
    text = text.strip()
    if markup.opened:
        text = text.removeprefix(markup.close)
    return markup.open not in text and markup.close not in text and _has_answer(text, markup)


def _has_answer(text: str, markup: Markup) -> bool:
    text = text.strip()
    if markup.answer is None:
        return bool(text)
    start, end = markup.answer
    inside = text.removeprefix(start).removesuffix(end)
    return (
        text == f"{start}{inside}{end}" and start not in inside and end not in inside and bool(inside.strip())
    )
