"""General rows without a data set, and without end: instructions with constraints that can be checked.

Preferences come from the same constraints.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from training.data.constraint_edits import draft, obeyed
from training.data.constraints import KINDS, Constraint, asked, drawn, satisfied
from training.types import Problem

__all__ = ["Preference", "instruction", "instructions", "preference", "preferences", "preferences_among"]

_TASKS = (
    "Write a short text about {topic}.",
    "Explain {topic} to a child.",
    "Give some advice on {topic}.",
    "Write to a friend about {topic}.",
    "What do people like about {topic}?",
    "Write an advertisement for {topic}.",
    "Tell a short story about {topic}.",
    "What should a beginner know about {topic}?",
)
_TOPICS = (
    "baking bread",
    "long walks",
    "learning to swim",
    "the night sky",
    "old maps",
    "city parks",
    "playing chess",
    "growing tomatoes",
    "travelling by train",
    "writing letters",
    "early mornings",
    "public libraries",
    "rainy days",
    "repairing bicycles",
    "folk songs",
    "keeping a diary",
    "cooking soup",
    "bird watching",
    "street markets",
    "winter sports",
    "learning a language",
    "board games",
    "house plants",
    "lighthouses",
    "drawing by hand",
)
_PROMPTS = tuple(product(_TASKS, _TOPICS))


@dataclass(frozen=True, slots=True)
class Preference:
    """A question, a reply that keeps to all its constraints, and one that doesn't."""

    row: Problem
    chosen: str
    rejected: str


def instruction(seed: int, index: int, most: int = 3) -> Problem:
    """The instruction at a place of the endless sequence of a seed, with 1 to `most` constraints.

    They can be kept together: a text that does has been found.
    """
    return _made(seed, index, most)[0]


def instructions(seed: int, count: int, start: int = 0, most: int = 3) -> list[Problem]:
    """So many instructions from a place on."""
    return [instruction(seed, index, most) for index in range(start, start + count)]


def preference(seed: int, index: int, most: int = 3) -> Preference:
    """A pair made by rule: the rejected text misses one of the constraints, and only that where it can.

    Both texts are the same draft, edited, so a reward model finds the constraint or nothing.
    """
    row, chosen, plain = _made(seed, index, most)
    chance = random.Random(f"{seed}/rejected/{index}")
    for missed in chance.sample(range(len(row.checks)), len(row.checks)):
        rest = [check for place, check in enumerate(row.checks) if place != missed]
        rejected = obeyed(plain, rest, chance)
        if rejected is not None and not satisfied(row.checks[missed], rejected):
            return Preference(row, chosen, rejected)
    return Preference(row, chosen, plain)


def preferences(seed: int, count: int, start: int = 0, most: int = 3) -> list[Preference]:
    """So many pairs from a place on."""
    return [preference(seed, index, most) for index in range(start, start + count)]


def preferences_among(row: Problem, replies: Sequence[str], most: int, seed: int) -> list[Preference]:
    """At most so many pairs of a model's own replies to a row with checks: one that keeps to all, one not."""
    good = [text for text in replies if all(satisfied(check, text) for check in row.checks)]
    bad = [text for text in replies if text not in good]
    pairs = list(product(good, bad))
    chance = random.Random(f"{seed}/{row.id}")
    return [Preference(row, *pair) for pair in chance.sample(pairs, min(most, len(pairs)))]


def _made(seed: int, index: int, most: int) -> tuple[Problem, str, str]:
    """The row, a text that keeps to its constraints, and the draft of that text, which doesn't."""
    chance = random.Random(f"{seed}/{index}")
    while True:
        task, topic = chance.choice(_PROMPTS)
        checks: list[Constraint] = [
            drawn(kind, chance) for kind in chance.sample(sorted(KINDS), chance.randint(1, most))
        ]
        plain = draft(topic, chance)
        chosen = obeyed(plain, checks, chance)
        if chosen is not None and not all(satisfied(check, plain) for check in checks):
            break
    question = " ".join([task.format(topic=topic), *map(asked, checks)])
    row = Problem(
        f"instructions/{seed}/{index}",
        question,
        reward="checks",
        checks=tuple(checks),
        source="instructions",
        general=True,
    )
    return row, chosen, plain
