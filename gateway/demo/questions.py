"""Ten questions with known answers, and the settings that the demo asks them at.

They are the first ten that the training of the demo's adapters held out (training/configs/smollm2.toml).
Nobody picked them because the model gets them right.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.demo.bundled import CHECKER

__all__ = ["CHECKED", "QUESTIONS", "SETTINGS", "DemoSetting", "Question"]

_SUM = "State the final answer to the following arithmetic problem: {} ="


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its correct answer, and the seed of its first sample (sample i has seed + i)."""

    text: str
    gold: str
    seed: int

    @property
    def short(self) -> str:
        """The question as the screen shows it: a sum without the words that start every sum."""
        return self.text.removeprefix(_SUM.removesuffix("{} ="))


@dataclass(frozen=True, slots=True)
class DemoSetting:
    """One round of the demo: a budget level, a number of samples, and a scorer."""

    budget: str
    samples: int
    scorer: str | None = None

    @property
    def thinks(self) -> bool:
        """Whether the budget allows any thinking."""
        return self.budget != "off"

    def describe(self) -> str:
        """The setting in words."""
        if self.samples == 1:
            return f"Budget {self.budget}, one sample"
        vote = "a majority vote" if self.scorer is None else f"a vote weighted by the {self.scorer}"
        return f"Budget {self.budget}, {self.samples} samples and {vote}"

    @property
    def vote(self) -> str:
        """How the samples become one answer, in a word."""
        return "–" if self.samples == 1 else self.scorer or "majority"


SETTINGS = (DemoSetting("off", 1), DemoSetting("off", 8), DemoSetting("high", 1), DemoSetting("high", 8))
CHECKED = DemoSetting("high", 8, CHECKER)
"""The round that needs the checker; only a gateway with that scorer gets it."""

_PAIRS = (
    (_SUM.format("36 - 10 + 78 + 24"), "128"),
    (_SUM.format("70 - 21 - 93 - 73"), "-117"),
    (_SUM.format("24 - 76"), "-52"),
    (_SUM.format("82 + 80 + 99 - 64"), "197"),
    (_SUM.format("9 + 9 + 7"), "25"),
    ("Gus has 17 eggs. Ivo has 6 more than Gus. How many eggs do both have together?", "40"),
    (_SUM.format("72 - 93 + 14"), "-7"),
    ("Finn buys 6 stamps at 6 dollars each and pays with 62 dollars. How many dollars come back?", "26"),
    (_SUM.format("46 + 26 + 49 + 87"), "208"),
    (_SUM.format("6 - 5 - 1"), "0"),
)

QUESTIONS = tuple(Question(text, gold, 1000 * index) for index, (text, gold) in enumerate(_PAIRS))
"""Eight sums of two to four terms and two word problems of two steps."""
