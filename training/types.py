"""The types that all of training shares: a problem, a reply to it, and a reward.

Standard library alone: the sandbox imports this module where nothing else is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NO_BUDGET", "SHAPING_REWARDS", "Completion", "Problem", "ProgramCase", "Reward"]

NO_BUDGET = "none"
"""The name, among levels, for asking a problem without a budget prompt."""

SHAPING_REWARDS = ("format", "language", "overlong", "short", "budget")
"""The names in `training.rewards.SHAPING`, for the configuration, which doesn't import the rewards."""


@dataclass(frozen=True, slots=True)
class ProgramCase:
    """One unit test of a whole program: its standard input, and the standard output it must print.

    `training.sandbox.programs` compares the output. `seconds` limits the run; None takes the sandbox's limit.
    """

    input: str
    output: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One question, and what tells a correct reply from a wrong one.

    Training, evaluation, promotion and the exports all use it. `id` is unique within a data set.

    - `gold` is the correct answer. `tolerance` is how far a correct number may lie from it, where the data's
      own rule says so; None asks for the same value.
    - `reward` names the reward that judges the replies (see `training.rewards.REWARDS`): "correct" needs
      `gold`, "tests" needs `tests` or `cases`, "checks" needs `checks`, "rubric" may have a `rubric`;
      "preference" and "majority" need nothing.
    - `tests` are Python assertions about what a reply's code defines. `cases` run that code as a program.
    - `pairs` are replies that people liked, each with one that they liked less. The preference model learns
      from them.
    - `source` names the data set, for metrics by source.
    - `general` problems keep abilities other than reasoning alive. They are asked without a budget prompt.
    - `extra` holds what only some sources give, as worked chains of thought ("chains").
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
    cases: tuple[ProgramCase, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply to a problem, as training draws it.

    `ids` are its tokens without the end-of-turn token. `text` is what they decode to, with special tokens.
    `policies.thinking` splits the text into `thinking` and `answer`; `thinking_tokens` counts the former.
    A `finished` reply ended by itself, within the length limit. `budget` names the level that the system
    prompt asked for; None where it asked for none.
    """

    text: str
    ids: tuple[int, ...]
    thinking: str
    answer: str
    thinking_tokens: int
    finished: bool
    budget: str | None = None


Reward = Callable[[Problem, Sequence[Completion]], Sequence[float | None]]
"""Judges all replies to one problem at once, because some rewards compare them with each other.

Returns one value for each reply; None where the reward does not apply to it.
"""
