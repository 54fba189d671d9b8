"""What a classifier is taught about a reply: whether it is right, step by step where that is known.

All is pure. A mark is a place in the text that is classified, counted in characters, and whether
the reply is right as far as there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scorers.grader.pool import MathPool
from scorers.trained import Case, filled
from training.data.chains import LENGTHS
from training.scorer.samples import Asked, LabelledReply, classes

__all__ = ["LabelledText", "change_digit", "labelled_texts", "step_labels", "with_hard_negatives"]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its marks (end, right so far); the last one is the whole reply's label."""

    text: str
    marks: tuple[tuple[int, bool], ...]


def step_labels(thinking: str, chain: str) -> list[tuple[int, bool]]:
    """Where each step of the thinking ends, and whether it agrees with the worked chain up to there.

    Steps are lines, or words where the chain is a single line. Only for questions whose chain is the one
    way of working them out; process supervision as in "Let's Verify Step by Step", arXiv:2305.20050.
    """
    pattern = r"[^\n]+" if "\n" in chain else r"\S+"
    expected = re.findall(pattern, chain)
    right = True
    found = []
    for place, step in enumerate(re.finditer(pattern, thinking)):
        right = right and place < len(expected) and step[0].strip() == expected[place].strip()
        found.append((step.end(), right))
    return found


def labelled_texts(template: str, asked: Iterable[Asked], *, steps: bool = False) -> list[LabelledText]:
    """Every reply with an answer as it will be classified, and its label; with `steps` those of its steps."""
    return [
        _marked(template, each, reply, steps)
        for each in asked
        for reply in each.replies
        if reply.answer.strip()
    ]


def _marked(template: str, asked: Asked, reply: LabelledReply, steps: bool) -> LabelledText:
    case = Case(asked.row.question, reply.answer, reply.thinking)
    text = filled(template, case)
    marks: list[tuple[int, bool]] = []
    chains = asked.row.extra.get("chains")
    before, found, _ = template.partition("{reasoning}")
    if steps and chains and found:
        start = len(filled(before, case))
        labels = step_labels(reply.thinking, chains[LENGTHS.get(asked.budget or "high", "high")])
        marks = [(start + end, right) for end, right in labels]
    return LabelledText(text, (*marks, (len(text), reply.correct)))


def change_digit(answer: str, chance: random.Random) -> str | None:
    """The answer with one digit changed; None where it has none."""
    places = [place for place, character in enumerate(answer) if character in "0123456789"]
    if not places:
        return None
    place = chance.choice(places)
    digit = chance.choice([each for each in "0123456789" if each != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]


def with_hard_negatives(asked: Sequence[Asked], seed: int, pool: MathPool | None = None) -> list[Asked]:
    """The same with more and harder negatives, as many as there are right replies.

    They are the wrong replies that would win their question's vote, once more, and near misses: right
    replies with one digit of the answer changed.
    """
    chance = random.Random(f"negatives {seed}")
    return [replace(each, replies=(*each.replies, *_negatives(each, chance, pool))) for each in asked]


def _negatives(asked: Asked, chance: random.Random, pool: MathPool | None) -> list[LabelledReply]:
    found = classes(asked, pool)
    held = [place for place in found if place is not None]
    leader = max(sorted(set(held)), key=held.count) if held else None
    wins = [
        reply
        for reply, place in zip(asked.replies, found, strict=True)
        if place is not None and place == leader and not reply.correct
    ]
    misses = []
    for reply in asked.replies:
        changed = change_digit(reply.answer, chance) if reply.correct else None
        if changed is not None:
            misses.append(replace(reply, answer=changed, correct=False))
    return [*wins, *misses]
