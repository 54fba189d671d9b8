"""Ten questions with known answers, easy enough for the smallest of models, and how they are put.

The numbers and the choices from the lists come from a fixed seed, not from what the model
happens to get right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

__all__ = ["SETTINGS", "Question", "Setting", "messages", "ten_questions"]

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
    ("What is 2 + 3?", "The answer is 5."),
    ("What is the capital of Italy?", "The answer is Rome."),
    ("How many wheels does a car have?", "The answer is 4."),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its right answer."""

    text: str
    gold: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What one round of the demo asks of the gateway; `max_tokens` caps thinking and answer of a sample."""

    budget: str
    samples: int
    max_tokens: int

    def describe(self) -> str:
        """The setting in words."""
        thinking = "No thinking" if self.budget == "off" else f"At most {self.budget} tokens of thinking"
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
    questions = [Question(f"What is {a} + {b}?", str(a + b)) for a, b in sums]
    for country in rng.sample(sorted(_CAPITALS), 3):
        questions.append(Question(f"What is the capital of {country}?", _CAPITALS[country]))
    questions += [Question(text, _COUNTS[text]) for text in rng.sample(sorted(_COUNTS), 3)]
    return questions


def messages(question: Question) -> list[dict[str, Any]]:
    """The chat for a question: examples first, which show a small model how an answer looks."""
    turns = [*_EXAMPLES, (question.text, None)]
    chat = []
    for asked, answered in turns:
        chat.append({"role": "user", "content": asked})
        if answered is not None:
            chat.append({"role": "assistant", "content": answered})
    return chat
