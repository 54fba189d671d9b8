"""Instructions with constraints that can be checked, and the preferences made of them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import SUM, reply
from training.data.constraint_edits import OBEY, draft, obeyed
from training.data.constraints import KINDS, asked, drawn, satisfied
from training.data.instructions import (
    instruction,
    instructions,
    preference,
    preferences_among,
)
from training.data.problems import DataError
from training.rewards.checks import checks
from training.types import Problem

CASES = [
    ({"kind": "words_at_least", "n": 3}, "one two three", "one two-two"),
    ({"kind": "words_at_most", "n": 2}, "don't stop", "one two three"),
    ({"kind": "sentences", "n": 2}, 'He said "no!" Then he left.', "Pi is 3.14 they say."),
    ({"kind": "paragraphs", "n": 2}, "One.\n \nTwo.\nStill two.", "One.\nTwo."),
    ({"kind": "bullets", "n": 2}, "So:\n- one\n  * two", "- one - two"),
    ({"kind": "no_commas"}, "one and two", "one, two"),
    ({"kind": "lowercase"}, "all small 1", "Not small"),
    ({"kind": "uppercase"}, "ALL BIG 1", "NOT BIg"),
    ({"kind": "keyword", "word": "river"}, "A River runs", "rivers run"),
    ({"kind": "no_keyword", "word": "the"}, "other things", "The things"),
    ({"kind": "keyword_times", "word": "light", "n": 2}, "Light is light.", "light light light"),
    ({"kind": "starts_with", "phrase": "In short:"}, "In short: yes", "Yes, in short:"),
    ({"kind": "ends_with", "phrase": "The end."}, "Yes. The end.\n", "The end. Yes."),
    ({"kind": "json"}, ' {"a": [1]} ', '"a"'),
    ({"kind": "title"}, "<<A title>>\ntext", "<< >> text"),
    ({"kind": "quotation"}, '"all of it"', '"one" and "two"'),
    ({"kind": "letter_at_least", "letter": "e", "n": 2}, "Ever", "one"),
    ({"kind": "placeholders", "n": 2}, "[name] in [place]", "[name] in []"),
    ({"kind": "highlights", "n": 1}, "this *part* here", "2 * 3 * 4 and **bold**"),
    ({"kind": "postscript"}, "Yes.\nP.S. No.", "P.S. No."),
    ({"kind": "script", "script": "GREEK", "language": "Greek"}, "Ναι, 42!", "Yes"),
]


@pytest.mark.parametrize(("constraint", "good", "bad"), CASES, ids=lambda case: str(case)[:30])
def test_what_keeps_to_a_constraint(constraint: dict[str, object], good: str, bad: str) -> None:
    """One text that keeps to each kind, and one that nearly does."""
    assert satisfied(constraint, good)
    assert not satisfied(constraint, bad)
    assert len(asked(constraint)) > 10


def test_every_kind_has_a_case_and_an_edit() -> None:
    """No kind is without an example here, nor without a way to keep to it."""
    assert {case[0]["kind"] for case in CASES} == set(KINDS) == set(OBEY)


@given(st.sampled_from(sorted(KINDS)), st.integers())
def test_every_constraint_can_be_kept(kind: str, seed: int) -> None:
    """Whatever is drawn, an edited draft keeps to it, and saying nothing doesn't."""
    chance = random.Random(seed)
    constraint = drawn(kind, chance)
    edited = obeyed(draft("chess", chance), [constraint], chance)
    assert edited is not None
    assert satisfied(constraint, edited)
    assert not satisfied(constraint, " ... ")


@given(st.text(max_size=60), st.sampled_from(CASES))
def test_any_text_can_be_checked(text: str, case: tuple[dict[str, object], str, str]) -> None:
    """Checking ends with a verdict, whatever the text."""
    assert satisfied(case[0], text) in {True, False}


def test_deep_json_is_no_crash() -> None:
    """A reply of a hundred thousand brackets is not JSON anybody asked for."""
    assert not satisfied({"kind": "json"}, "[" * 100_000 + "a")


@pytest.mark.parametrize(
    "wrong", [{"kind": "rhymes"}, {}, {"kind": "sentences"}, {"kind": "words_at_least", "n": "x"}]
)
def test_a_wrong_constraint_is_an_error(wrong: dict[str, object]) -> None:
    """A kind that doesn't exist, and parameters that are missing or wrong, are told."""
    with pytest.raises(DataError, match="constraint"):
        satisfied(wrong, "some text")


def test_the_reward_is_all_or_nothing() -> None:
    """1.0 only where every constraint is kept, in the answer alone, by a reply that ended."""
    both = Problem("1", "Hi", reward="checks", checks=({"kind": "no_commas"}, {"kind": "lowercase"}))
    replies = [
        reply("<think>One, two</think>one two"),
        reply("one, two"),
        reply("ONE TWO"),
        reply("one two", finished=False),
        reply("<think>one two</think>"),
    ]
    assert checks(both, replies) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert checks(SUM, replies[:1]) == [None]


seeds = st.integers(0, 1000)


@given(seeds, seeds)
def test_instructions_are_endless_and_the_same(seed: int, index: int) -> None:
    """A place of a seed's sequence always holds the same row, with its constraints in words."""
    row = instruction(seed, index)
    assert row == instructions(seed, 1, start=index)[0]
    assert row.general
    assert row.reward == "checks"
    assert 1 <= len(row.checks) <= 3
    assert all(asked(check) in row.question for check in row.checks)


@given(seeds, seeds)
def test_the_chosen_keeps_to_all_and_the_rejected_doesn_t(seed: int, index: int) -> None:
    """A pair is told apart by its constraints, and by nothing that they don't say."""
    pair = preference(seed, index)
    assert pair.row == instruction(seed, index)
    assert all(satisfied(check, pair.chosen) for check in pair.row.checks)
    assert not all(satisfied(check, pair.rejected) for check in pair.row.checks)


def test_different_seeds_ask_differently() -> None:
    """A hundred instructions are hardly ever the same, and another seed has others."""
    first, second = ({row.question for row in instructions(seed, 100)} for seed in (1, 2))
    assert len(first) > 90
    assert len(first & second) < 10


def test_pairs_of_a_model_s_own_replies() -> None:
    """Each pair is a reply that keeps to the constraints and one that doesn't; without both there is none."""
    row = Problem("1", "Hi", reward="checks", checks=({"kind": "no_commas"},))
    pairs = preferences_among(row, ["a b", "a, b", "c d", "c, d"], most=3, seed=1)
    assert len(pairs) == 3
    assert {pair.chosen for pair in pairs} <= {"a b", "c d"}
    assert {pair.rejected for pair in pairs} <= {"a, b", "c, d"}
    assert preferences_among(row, ["a b"], most=3, seed=1) == []
