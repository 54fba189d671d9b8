"""Choosing problems of a data set, and a digest of what an evaluation asks."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.types import Problem

__all__ = ["DataError", "choose_problems", "problems_digest"]


class DataError(Exception):
    """The data can't be used; the message names the file, line or task and what is wrong with it."""


def problems_digest(problems: Iterable[Problem], chats: Mapping[str, Any]) -> str:
    """Return 16 hex digits over the chats (by problem id) and the rule that marks their replies.

    Two evaluations with different digests must not be mixed.
    """
    facts = [
        [
            problem.id,
            problem.gold,
            chats[problem.id],
            *([] if problem.tolerance is None else [problem.tolerance]),
        ]
        for problem in problems
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def choose_problems(
    problems: Sequence[Problem], count: int, shots: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """Return `shots` examples to show, and `count` other problems (0: all) to ask, in their order.

    The seed alone decides which. An example, or a copy of one, is never asked.
    Raises DataError where there are too few problems.
    """
    order = random.Random(seed).sample(range(len(problems)), len(problems))
    examples = [problems[index] for index in order[:shots]]
    shown = {example.question for example in examples}
    others = [index for index in order[shots:] if problems[index].question not in shown]
    size = count or len(others)
    if len(examples) < shots or not 0 < size <= len(others):
        raise DataError(f"{size} questions and {shots} examples were asked for; there are {len(problems)}")
    return examples, [problems[index] for index in sorted(others[:size])]
