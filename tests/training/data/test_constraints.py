"""Instructions with constraints that code can check, and the pairs that they give."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import SUM, reply
from training.data.constraint_edits import EDITS, draft_text, edit_to_satisfy
from training.data.constraints import CONSTRAINT_KINDS, constraint_request, is_satisfied, random_constraint
from training.data.instructions import constraint_pairs, instruction
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
def test_each_kind_is_checked(constraint: dict[str, object], good: str, bad: str) -> None:
    """One text satisfies the constraint, and one nearly does."""
    assert is_satisfied(constraint, good)
    assert not is_satisfied(constraint, bad)
    assert len(constraint_request(constraint)) > 10


def test_every_kind_has_a_case_and_an_edit() -> None:
    """No kind is without an example here, nor without a way to satisfy it."""
    assert {case[0]["kind"] for case in CASES} == set(CONSTRAINT_KINDS) == set(EDITS)


@given(st.sampled_from(sorted(CONSTRAINT_KINDS)), st.integers())
def test_every_constraint_can_be_satisfied(kind: str, seed: int) -> None:
    """For any parameters an edited draft satisfies it, and a text without words doesn't."""
    rng = random.Random(seed)
    constraint = random_constraint(kind, rng)
    edited = edit_to_satisfy(draft_text("chess", rng), [constraint], rng)
    assert edited is not None
    assert is_satisfied(constraint, edited)
    assert not is_satisfied(constraint, " ... ")


@given(st.text(max_size=60), st.sampled_from(CASES))
def test_any_text_can_be_checked(text: str, case: tuple[dict[str, object], str, str]) -> None:
    """Checking ends with a verdict, whatever the text."""
    assert is_satisfied(case[0], text) in {True, False}


def test_deep_json_is_no_crash() -> None:
    """A reply of a hundred thousand brackets is not JSON."""
    assert not is_satisfied({"kind": "json"}, "[" * 100_000 + "a")


@pytest.mark.parametrize(
    "wrong", [{"kind": "rhymes"}, {}, {"kind": "sentences"}, {"kind": "words_at_least", "n": "x"}]
)
def test_a_wrong_constraint_is_an_error(wrong: dict[str, object]) -> None:
    """A kind that doesn't exist, and missing or wrong parameters, are errors."""
    with pytest.raises(DataError, match="constraint"):
        is_satisfied(wrong, "some text")


def test_the_reward_is_all_or_nothing() -> None:
    """1.0 only where the answer of a finished reply satisfies every constraint."""
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
    """A place of a seed's sequence always holds the same problem, with its constraints in words."""
    problem = instruction(seed, index)
    assert problem == instruction(seed, index)
    assert problem.general
    assert problem.reward == "checks"
    assert 1 <= len(problem.checks) <= 3
    assert all(constraint_request(check) in problem.question for check in problem.checks)


def test_different_seeds_ask_differently() -> None:
    """A hundred instructions are hardly ever the same, and another seed has others."""
    first, second = ({instruction(seed, index).question for index in range(100)} for seed in (1, 2))
    assert len(first) > 90
    assert len(first & second) < 10


def test_pairs_of_a_model_s_own_replies() -> None:
    """Each pair is a reply that satisfies the constraints and one that doesn't; both are needed."""
    problem = Problem("1", "Hi", reward="checks", checks=({"kind": "no_commas"},))
    pairs = constraint_pairs(problem, ["a b", "a, b", "c d", "c, d"], limit=3, seed=1)
    assert len(pairs) == 3
    assert {pair.chosen for pair in pairs} <= {"a b", "c d"}
    assert {pair.rejected for pair in pairs} <= {"a, b", "c, d"}
    assert constraint_pairs(problem, ["a b"], limit=3, seed=1) == []
