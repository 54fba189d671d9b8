"""The levels: how much thinking each allows, and the system prompt that asks for it.

To add a level or change its prompt: edit one row of `LEVELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from policies.thinking import Markup

__all__ = [
    "LEAD_IN",
    "LEVELS",
    "WAIT",
    "Level",
    "closing_text",
    "nearest_level",
    "policy_prompt",
    "thinking_limit",
]


WAIT = "\nWait,"
"""Replaces an end tag that comes too early (s1, arXiv:2501.19393)."""


LEAD_IN = "The answer is"
"""Starts the answer of a model that thinks and then says nothing; it is no part of the reply."""


@dataclass(frozen=True, slots=True)
class Level:
    """One named budget.

    `tokens` is the hard limit on thinking tokens (None: what the context leaves). `share` is the
    largest part of the model's context that may go into thinking. `prompt` is the system prompt.
    `samples`, `vote` and `stop`, where set, apply unless the client sets its own. `waits` is how
    often an early end of thinking may be put off.
    """

    name: str
    tokens: int | None
    share: Fraction
    prompt: str
    samples: int | None = None
    vote: str | None = None
    stop: str | None = None
    waits: int = 0


_ROWS = (
    Level("off", 0, Fraction(0), "Answer at once, without thinking it through first."),
    Level(
        "minimal",
        256,
        Fraction(1, 16),
        # Chain of Draft (arXiv:2502.18600): as little as 7.6% of the usual tokens.
        "Think it through in brief notes first, five words a step at most, then answer.",
    ),
    Level("low", 1024, Fraction(1, 8), "Think it through briefly first, then answer."),
    Level("medium", 4096, Fraction(1, 4), "Think it through step by step first, then answer."),
    Level(
        "high",
        16384,
        Fraction(1, 2),
        "Think it through carefully step by step first, check the result, then answer.",
    ),
    Level(
        "max",
        None,
        Fraction(3, 4),
        "Think it through as long as it takes first: try other ways, check every step, then answer.",
        waits=2,  # s1 (arXiv:2501.19393) gains up to two and little after
    ),
)

LEVELS: Mapping[str, Level] = {level.name: level for level in _ROWS}


def nearest_level(tokens: int, levels: Mapping[str, Level] = LEVELS) -> Level:
    """Return the level whose prompt suits a number of tokens: the smallest that allows as many."""
    bounded = [level for level in levels.values() if level.tokens is not None]
    bounded.sort(key=lambda level: level.tokens or 0)
    return next((level for level in bounded if (level.tokens or 0) >= tokens), bounded[-1])


def thinking_limit(level: Level, context: int | None) -> int | None:
    """Return the level's hard limit in tokens for a model with this context length (None: unknown).

    A level without a limit of its own has none where the context length is unknown.
    """
    if context is None:
        return level.tokens
    cap = int(context * level.share)
    return cap if level.tokens is None else min(level.tokens, cap)


def policy_prompt(level: Level, markup: Markup, *, teach: bool) -> str:
    """Return the level's system prompt; with `teach` it names the tags, for a model that knows none."""
    if not teach or level.tokens == 0:
        return level.prompt
    return (
        f"{level.prompt} Write your thinking between {markup.open} and {markup.close}, "
        "and after it only the answer."
    )


def closing_text(markup: Markup, *, limit_reached: bool) -> str:
    """Return the text, with the end tag, that the gateway writes to end the model's thinking."""
    sentence = "\n\nI have thought long enough and will answer now." if limit_reached else ""
    return f"{sentence}\n{markup.close}\n\n"
