"""Ten questions with known answers, easy enough for the smallest of models, and how they are put.

The numbers and the choices from the lists come from a fixed seed, not from what the model
happens to get right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

__all__ = ["SETTINGS", "STOP", "Question", "Setting", "messages", "ten_questions"]

_CAPITALS = {
    "Canada": "Ottawa",
    "Egypt": "Cairo",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Japan": "Tokyo",
    "Norway": "Oslo",
    "Spain": "Madrid",
}
_COUNTS = {
    "How many days are in a week?": "7",
    "How many hours are in a day?": "24",
    "How many legs does a spider have?": "8",
    "How many letters are in the English alphabet?": "26",
    "How many months are in a year?": "12",
    "How many sides does a triangle have?": "3",
}
_EXAMPLES = (
    ("What is 2 + 3?", "2 and 3 more make 5.", "The answer is 5."),
    (
        "What is the capital of Italy?",
        "Italy is a country in Europe. Its capital is Rome.",
        "The answer is Rome.",
    ),
    (
        "How many wheels does a car have?",
        "A car has two wheels in front and two behind: 4.",
        "The answer is 4.",
    ),
)
STOP = "\nQuestion:"
"""Where a reply ends that goes on to ask itself the next question."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its right answer, and the seed of its first sample (sample i has seed + i)."""

    text: str
    gold: str
    seed: int


@dataclass(frozen=True, slots=True)
class Setting:
    """What one round of the demo asks of the gateway; `max_tokens` caps thinking and answer of a sample."""

    budget: str
    samples: int
    max_tokens: int

    @property
    def thinks(self) -> bool:
        """Whether any thinking is allowed."""
        return self.budget != "off"

    def describe(self) -> str:
        """The setting in words."""
        thinking = f"At most {self.budget} tokens of thinking" if self.thinks else "No thinking"
        return f"{thinking}, {'one sample' if self.samples == 1 else f'{self.samples} samples and a vote'}"


SETTINGS = (
    Setting("off", 1, 64),
    Setting("off", 8, 64),
    Setting("64", 1, 128),
    Setting("64", 8, 128),
)


def ten_questions(seed: int = 0) -> list[Question]:
    """Four sums, three capitals, three things to count."""
    rng = random.Random(seed)
    sums = [(rng.randint(2, 9), rng.randint(2, 9)) for _ in range(4)]
    pairs = [(f"What is {a} + {b}?", str(a + b)) for a, b in sums]
    countries = rng.sample(sorted(_CAPITALS), 3)
    pairs += [(f"What is the capital of {country}?", _CAPITALS[country]) for country in countries]
    pairs += [(text, _COUNTS[text]) for text in rng.sample(sorted(_COUNTS), 3)]
    return [Question(text, gold, 1000 * place) for place, (text, gold) in enumerate(pairs)]


def messages(question: Question, *, thinking: bool) -> list[dict[str, Any]]:
    """The chat for a question: examples first, which show a small model how to think and how to answer."""
    examples = [
        f"Question: {asked}\n" + (f"<think>\n{thought}\n</think>\n\n" if thinking else "") + answered
        for asked, thought, answered in _EXAMPLES
    ]
    return [{"role": "user", "content": "\n\n".join([*examples, f"Question: {question.text}"])}]
