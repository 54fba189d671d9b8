"""Whether the evaluation's questions were trained on."""

from hypothesis import given
from hypothesis import strategies as st

from training.data.contamination import clean, overlaps
from training.types import Problem

LONG = "A farmer has nine hens and each of them lays two eggs on every day but Sunday so how many eggs"


def rows(*questions: str) -> list[Problem]:
    """One row for each question, its id the place."""
    return [Problem(str(place), question) for place, question in enumerate(questions)]


def test_equal_but_for_dress() -> None:
    """Case, spaces and punctuation hide nothing, however short the question is."""
    (found,) = overlaps(rows("What is 2+2?", "And 3 + 4?"), rows("what is  2 + 2"))
    assert (found.trained, found.evaluated, found.kind) == ("0", "0", "equal")


def test_another_sum_is_another_question() -> None:
    """Numbers and signs make the question where the words are the same."""
    assert overlaps(rows("What is 2 - 2?", "What is 2 + 3?"), rows("What is 2 + 2?")) == []


def test_thirteen_words_in_a_row() -> None:
    """A long phrase in other surroundings is an overlap, one word less is none."""
    part = LONG.split()
    (found,) = overlaps(rows(f"Think. {' '.join(part[:13])} then?"), rows(LONG))
    assert (found.kind, found.text) == ("phrase", " ".join(part[:13]).lower())
    assert overlaps(rows(f"Think. {' '.join(part[:12])} then?"), rows(LONG)) == []


def test_a_task_s_fixed_words_say_nothing() -> None:
    """Phrases that many questions share are its instructions; only the numbers tell questions apart."""
    made = [f"{LONG} are there with {n} hens?" for n in range(20)]
    assert overlaps(rows(*made[:10]), rows(*made[10:])) == []
    assert [each.kind for each in overlaps(rows(*made[:11]), rows(*made[10:]))] == ["equal"]


def test_cleaning_leaves_no_phrase_that_rows_now_gone_had_made_common() -> None:
    """A phrase of many rows passes for a task's words; when those rows are dropped it no longer does."""
    others = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    evaluation = rows(f"{LONG} {others}")
    training = rows(*(f"{LONG} {n}" for n in range(3)), *(f"{LONG} {others} {n}" for n in range(3)))
    kept = clean(training, evaluation)
    assert kept == []


words = st.lists(st.sampled_from(["a", "b", "1", "+"]), min_size=1, max_size=5).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_what_is_left_is_clean(trained: list[str], asked: list[str]) -> None:
    """Cleaning drops what overlaps and nothing else, and leaves none of the evaluation's questions."""
    training, evaluation = rows(*trained), rows(*asked)
    kept = clean(training, evaluation)
    assert overlaps(kept, evaluation) == []
    dropped = {each.trained for each in overlaps(training, evaluation)}
    assert [row.id for row in kept] == [row.id for row in training if row.id not in dropped]
    assert not {row.question for row in kept} & set(asked)
