"""The budget levels: how much thinking each allows, and the system-prompt policy that asks for it.

To add a level or change its prompt: one row of `LEVELS`.
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
"""What stands in place of an end tag that comes too early (s1, arXiv:2501.19393)."""


LEAD_IN = "The answer is"
"""What a model goes on from that has thought and then says nothing; it is no part of the reply."""


@dataclass(frozen=True, slots=True)
class Level:
    """One named budget.

    `tokens` is the hard limit on thinking tokens (None: what the context leaves), `share`
    the most of the model's context that may go into thinking, `prompt` what the model is
    told. `samples`, `vote` and `stop`, where set, come with the level unless the client
    says otherwise; `waits` bounds how often an early end of thinking is put off.
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
    """The level whose prompt fits a bare number of tokens: the smallest that is not exceeded by it."""
    bounded = sorted((x for x in levels.values() if x.tokens is not None), key=lambda x: x.tokens or 0)
    return next((level for level in bounded if (level.tokens or 0) >= tokens), bounded[-1])


def thinking_limit(level: Level, context: int | None) -> int | None:
    """The level's hard limit in tokens for a model with this context length (None: unknown).

    Without a context length an open-ended level stays without a limit.
    """
    if context is None:
        return level.tokens
    most = int(context * level.share)
    return most if level.tokens is None else min(level.tokens, most)


def policy_prompt(level: Level, markup: Markup, *, teach: bool) -> str:
    """What the model is told. `teach`: also tell it which tags to use, where it doesn't know them."""
    if not teach or level.tokens == 0:
        return level.prompt
    return (
        f"{level.prompt} Write your thinking between {markup.open} and {markup.close}, "
        "and after it only the answer."
    )


def closing_text(markup: Markup, *, limit_reached: bool) -> str:
    """What is written in the model's place to end its thinking, with the end tag."""
    sentence = "\n\nI have thought long enough and will answer now." if limit_reached else ""
    return f"{sentence}\n{markup.close}\n\n"
