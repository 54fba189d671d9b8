"""Ten questions with known answers, and the settings at which they are asked.

They are of the kinds that the demo's adapter was trained on, word problems, sums and longer sums, but none
of those that it saw: the first four, two and four of a fixed seed each, not what the model happens to get
right.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.demo.bundled import CHECKER

__all__ = ["CHECKED", "QUESTIONS", "SETTINGS", "Question", "Setting"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its right answer, and the seed of its first sample (sample i has seed + i)."""

    text: str
    gold: str
    seed: int


@dataclass(frozen=True, slots=True)
class Setting:
    """What one round of the demo asks of the gateway: a budget level, a number of samples, and a scorer."""

    budget: str
    samples: int
    scorer: str | None = None

    @property
    def thinks(self) -> bool:
        """Whether any thinking is allowed."""
        return self.budget != "off"

    def describe(self) -> str:
        """The setting in words."""
        if self.samples == 1:
            return f"Budget {self.budget}, one sample"
        vote = "a majority vote" if self.scorer is None else f"a vote weighed by the {self.scorer}"
        return f"Budget {self.budget}, {self.samples} samples and {vote}"

    @property
    def vote(self) -> str:
        """How the samples are put together, in a word."""
        return "–" if self.samples == 1 else self.scorer or "majority"


SETTINGS = (Setting("off", 1), Setting("off", 8), Setting("high", 1), Setting("high", 8))
CHECKED = Setting("high", 8, CHECKER)
"""Asked where that scorer is served."""

_SUM = "State the final answer to the following arithmetic problem: {} ="
_PAIRS = (
    ("Ivo buys 5 coins at 5 dollars each and pays with 27 dollars. How many dollars come back?", "2"),
    ("Lea has 54 stickers. Lea finds 29 more and loses 8. How many stickers are left?", "75"),
    ("Gus has 38 coins. Gus finds 7 more and loses 6. How many coins are left?", "39"),
    ("Finn has 13 coins. Finn finds 7 more and sells 1. How many coins are left?", "19"),
    (_SUM.format("74 + 75"), "149"),
    (_SUM.format("0 - 5 + 5"), "0"),
    (_SUM.format("8 - 8 - 1 - 3 + 9"), "5"),
    (_SUM.format("1 - 0 + 5 - 6 + 2"), "2"),
    (_SUM.format("0 + 5 + 5 - 4 - 2"), "4"),
    (_SUM.format("2 + 2 - 6 - 8 - 8"), "-18"),
)

QUESTIONS = tuple(Question(text, gold, 1000 * place) for place, (text, gold) in enumerate(_PAIRS))
"""Four word problems of two steps, two sums, and four sums of five terms."""
