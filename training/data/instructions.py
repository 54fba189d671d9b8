"""General problems without a data set and without end: instructions with constraints that code can check.

The same constraints tell good replies from bad ones, which gives pairs for a preference model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from training.data.constraint_edits import draft_text, edit_to_satisfy
from training.data.constraints import CONSTRAINT_KINDS, constraint_request, is_satisfied, random_constraint
from training.types import Problem

__all__ = ["PreferencePair", "constraint_pairs", "instruction"]

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
class PreferencePair:
    """A problem, the reply that is preferred, and the reply that is rejected for it."""

    problem: Problem
    chosen: str
    rejected: str


def instruction(seed: int, index: int, limit: int = 3) -> Problem:
    """Return the instruction at an index of a seed's endless sequence, with 1 to `limit` constraints.

    Some text satisfies all of them, and an unedited draft doesn't.
    """
    rng = random.Random(f"{seed}/{index}")
    while True:
        task, topic = rng.choice(_PROMPTS)
        kinds = rng.sample(sorted(CONSTRAINT_KINDS), rng.randint(1, limit))
        checks = [random_constraint(kind, rng) for kind in kinds]
        draft = draft_text(topic, rng)
        edited = edit_to_satisfy(draft, checks, rng)
        if edited is not None and not all(is_satisfied(check, draft) for check in checks):
            break
    return Problem(
        f"instructions/{seed}/{index}",
        " ".join([task.format(topic=topic), *map(constraint_request, checks)]),
        reward="checks",
        checks=tuple(checks),
        source="instructions",
        general=True,
    )


def constraint_pairs(problem: Problem, replies: Sequence[str], limit: int, seed: int) -> list[PreferencePair]:
    """Return up to `limit` pairs of a model's own replies: one satisfies all checks, the other doesn't."""
    good = [text for text in replies if all(is_satisfied(check, text) for check in problem.checks)]
    bad = [text for text in replies if text not in good]
    pairs = list(product(good, bad))
    rng = random.Random(f"{seed}/{problem.id}")
    return [PreferencePair(problem, *pair) for pair in rng.sample(pairs, min(limit, len(pairs)))]
