"""Which replies are fit to be imitated."""

import pytest

from training.stages.reply_filter import is_fit_to_imitate, is_repetitive
from training.types import Problem

ROW = Problem("1", "How many apples are left when Ann eats two of her five apples?", "3")


@pytest.mark.parametrize(
    ("thinking", "answer", "budget", "fit"),
    [
        ("5 - 2 = 3", "3", "high", True),
        ("", "3", "off", True),
        ("5 - 2 = 3", "3", "off", False),
        ("5 - 2 = 3", " ", "high", False),
        ("<think>5 - 2", "3", "high", False),
        ("5 - 2 = 3", "3<|im_end|>", "high", False),
        ("so then we take two away again " * 20, "3", "high", False),
        ("Пять яблок минус два яблока будет ровно три яблока", "3", "high", False),
    ],
)
def test_readable_chains_in_the_budgets_form_are_fit(
    thinking: str, answer: str, budget: str, fit: bool
) -> None:
    """A loop, a stray tag, another script, thinking where none was allowed, or no answer is not."""
    assert is_fit_to_imitate(ROW, thinking, answer, budget) is fit


def test_short_texts_are_never_called_repetitive() -> None:
    """A few equal words are no loop."""
    assert not is_repetitive("no no no no no no no no")
