"""Contamination of the training data by the evaluation's questions."""

from hypothesis import given
from hypothesis import strategies as st

from training.data.contamination import clean, overlaps
from training.types import Problem

LONG = "A farmer has nine hens and each of them lays two eggs on every day but Sunday so how many eggs"


def problems(*questions: str) -> list[Problem]:
    """Return one problem for each question; ids are the places."""
    return [Problem(str(place), question) for place, question in enumerate(questions)]


def test_case_spaces_and_punctuation_do_not_count() -> None:
    """Questions that differ in nothing else are equal, however short they are."""
    (overlap,) = overlaps(problems("What is 2+2?", "And 3 + 4?"), problems("what is  2 + 2"))
    assert (overlap.trained, overlap.evaluated, overlap.kind) == ("0", "0", "equal")


def test_another_sum_is_another_question() -> None:
    """Numbers and signs count where the words are the same."""
    assert overlaps(problems("What is 2 - 2?", "What is 2 + 3?"), problems("What is 2 + 2?")) == []


def test_thirteen_words_in_a_row() -> None:
    """A long phrase in other surroundings is an overlap, one word less is none."""
    part = LONG.split()
    (overlap,) = overlaps(problems(f"Think. {' '.join(part[:13])} then?"), problems(LONG))
    assert (overlap.kind, overlap.text) == ("phrase", " ".join(part[:13]).lower())
    assert overlaps(problems(f"Think. {' '.join(part[:12])} then?"), problems(LONG)) == []


def test_a_task_s_fixed_words_do_not_count() -> None:
    """Phrases that many questions share are its instructions; only the numbers tell questions apart."""
    questions = [f"{LONG} are there with {n} hens?" for n in range(20)]
    assert overlaps(problems(*questions[:10]), problems(*questions[10:])) == []
    assert [overlap.kind for overlap in overlaps(problems(*questions[:11]), problems(*questions[10:]))] == [
        "equal"
    ]


def test_cleaning_is_repeated_until_nothing_overlaps() -> None:
    """A phrase of many problems doesn't count; it does once most of those problems are removed."""
    others = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    evaluation = problems(f"{LONG} {others}")
    training = problems(*(f"{LONG} {n}" for n in range(3)), *(f"{LONG} {others} {n}" for n in range(3)))
    assert clean(training, evaluation) == []


words = st.lists(st.sampled_from(["a", "b", "1", "+"]), min_size=1, max_size=5).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_the_rest_is_clean(trained: list[str], evaluated: list[str]) -> None:
    """Cleaning removes what overlaps and nothing else, and leaves no question of the evaluation."""
    training, evaluation = problems(*trained), problems(*evaluated)
    rest = clean(training, evaluation)
    assert overlaps(rest, evaluation) == []
    removed = {overlap.trained for overlap in overlaps(training, evaluation)}
    assert [problem.id for problem in rest] == [
        problem.id for problem in training if problem.id not in removed
    ]
    assert not {problem.question for problem in rest} & set(evaluated)
