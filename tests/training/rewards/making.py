"""A problem and replies for the tests of rewards."""

from policies.thinking import Markup, split_thinking
from training.types import Completion, Problem

SUM = Problem("1", "What is 6 times 7?", gold="42")


def reply(
    text: str,
    *,
    tokens: int | None = None,
    thinking_tokens: int = 0,
    finished: bool = True,
    budget: str | None = None,
    markup: Markup | None = None,
) -> Completion:
    """Return a reply with this raw text, of one token a character unless `tokens` says how many."""
    thinking, answer = split_thinking(text, markup)
    ids = tuple(range(len(text) if tokens is None else tokens))
    return Completion(text, ids, thinking, answer, thinking_tokens, finished, budget)
