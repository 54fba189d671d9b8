"""The words that every part of training shares: what is asked, what was replied, what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Completion", "Problem", "Reward"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One question to train on, and what tells a right reply from a wrong one.

    `reward` names the reward that judges its replies (see `training.rewards.REWARDS`): "correct"
    needs `gold`, "tests" needs `tests` (Python assertions), "checks" needs `checks`, "rubric" may
    have a `rubric`; "preference" and "majority" need nothing. `pairs` are replies that were liked,
    each with one that was not: the preference model learns from them. `source` is the data set, for figures
    a source. `general` rows keep abilities other than reasoning alive; they are answered without
    a budget prompt. `tolerance` is how far from the gold a number may lie and still be right, where
    the data's own rule says so; None asks for the same value.
    """

    id: str
    question: str
    gold: str | None = None
    reward: str = "correct"
    tests: str = ""
    checks: tuple[Mapping[str, Any], ...] = ()
    rubric: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    source: str = ""
    general: bool = False
    tolerance: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply to a row, as drawn in training.

    `ids` are its tokens without the end-of-turn token, `text` what they decode to, special tokens
    kept. `thinking` and `answer` are what `policies.thinking` finds in the text; `thought` is the
    number of tokens in the thinking. `finished`: it ended by itself, within the length limit.
    `budget` is the name of the level that its system prompt asked for, None where none did.
    """

    text: str
    ids: tuple[int, ...]
    thinking: str
    answer: str
    thought: int
    finished: bool
    budget: str | None = None


Reward = Callable[[Problem, Sequence[Completion]], Sequence[float | None]]
"""Judges all replies to one row at once, for some rewards compare them with each other.

One value for each reply, None where the reward does not apply to it.
"""
