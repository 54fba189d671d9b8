"""Data sets read, and questions made."""

import gzip
import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import verify
from training.data.problems import (
    DataError,
    EvaluationProblem,
    choose,
    digest,
    gym_problems,
    parse_problems,
    read_problems,
)


def test_the_fields_of_the_known_sets_are_read() -> None:
    """GSM8K's answer stands behind ####, MATH-500 has a problem, and a number may be an answer."""
    lines = [
        json.dumps({"question": "How many?", "answer": "2+2 = <<2+2=4>>4\n#### 1,004"}),
        json.dumps({"problem": "Solve.", "solution": "...", "answer": "\\frac{1}{2}"}),
        "",
        json.dumps({"question": "6 x 7?", "answer": 42}),
    ]
    assert parse_problems(lines) == [
        EvaluationProblem("1", "How many?", "1,004"),
        EvaluationProblem("2", "Solve.", "\\frac{1}{2}"),
        EvaluationProblem("4", "6 x 7?", "42"),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: must be a JSON object"),
        ('{"answer": "4"}', "line 2: needs a question"),
        ('{"question": " ", "answer": "4"}', "line 2: needs a question"),
        ('{"question": "2+2?"}', "line 2: needs an answer"),
        ('{"question": "2+2?", "answer": ["4"]}', "line 2: needs an answer"),
        ('{"question": "2+2?", "answer": true}', "line 2: needs an answer"),
        ('{"question": "2+2?", "answer": "so\\n#### "}', "line 2: the answer is empty"),
        ('{"question": "2+2?", "answer": "4", "tolerance": -1}', "line 2: a tolerance is a number over 0"),
        ('{"question": "2+2?", "answer": "4", "tolerance": NaN}', "line 2: a tolerance is a number over 0"),
        ('{"question": "2+2?", "answer": "4", "tolerance": "1"}', "line 2: a tolerance is a number over 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    """The message names the file, the line's number and what is wrong with it."""
    path = tmp_path / "set.jsonl"
    path.write_text(f'{{"question": "1+1?", "answer": "2"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_problems(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_a_file_may_be_gzipped(tmp_path: Path) -> None:
    """Gzipped lines are the same lines; a broken file, an empty and a missing one are told."""
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "1+1?", "answer": "2"}\n'))
    assert read_problems(path) == [EvaluationProblem("1", "1+1?", "2")]
    path.write_bytes(path.read_bytes()[:15])
    with pytest.raises(DataError, match="can't be read"):
        read_problems(path)
    path.write_bytes(b"\n")
    with pytest.raises(DataError, match="holds no questions"):
        read_problems(path)
    with pytest.raises(DataError, match="No such file"):
        read_problems(tmp_path / "missing")


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 40), st.integers())
def test_examples_are_never_asked(total: int, shots: int, count: int, seed: int) -> None:
    """What is shown and what is asked are apart, as many as wanted, the same for the same seed, in order."""
    problems = [EvaluationProblem(f"{i:02}", f"{i}?", str(i)) for i in range(total)]
    wanted = count or total - shots
    if not 0 < wanted <= total - shots:
        with pytest.raises(DataError, match=f"there are {total}"):
            choose(problems, count, shots, seed)
        return
    shown, asked = choose(problems, count, shots, seed)
    assert (len(shown), len(asked)) == (shots, wanted)
    assert not {each.id for each in shown} & {each.id for each in asked}
    assert [each.id for each in asked] == sorted({each.id for each in asked})
    assert choose(problems, count, shots, seed) == (shown, asked)


def test_a_copy_of_an_example_is_not_asked() -> None:
    """A question that stands twice in the data is shown or asked, not both."""
    problems = [EvaluationProblem(str(i), "3 + 4?", "7") for i in range(3)]
    with pytest.raises(DataError, match="there are 3"):
        choose(problems, 1, 1, seed=1)


def test_without_reasoning_gym_a_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is only asked for where a task is."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"pip install 'thinkgate\[eval\]'"):
        gym_problems("chain_sum", 3, 1)


@pytest.mark.parametrize(
    ("task", "tolerance"),
    [
        ("decimal_arithmetic", 0.001),
        ("decimal_arithmetic:min_num_decimal_places=2,max_num_decimal_places=2", 0.01),
        ("coin_flip", 0.0001),
        ("chain_sum", None),
    ],
)
def test_a_task_states_its_own_tolerance(task: str, tolerance: float | None) -> None:
    """Where a task marks by a distance its problems have it, and the task's own marks agree at the bound."""
    gym = pytest.importorskip("reasoning_gym")
    (problem,) = gym_problems(task, 1, 7)
    assert problem.tolerance == tolerance
    if task.startswith("decimal_arithmetic"):
        places = -Decimal(str(tolerance)).as_tuple().exponent
        made = gym.create_dataset(
            "decimal_arithmetic", size=1, seed=7, min_num_decimal_places=places, max_num_decimal_places=places
        )
        for off, right in (("1", True), ("1.01", False)):
            answer = str(Decimal(problem.gold) + Decimal(off) * Decimal(str(tolerance)))
            assert verify(f"\\boxed{{{answer}}}", problem.gold, tolerance=tolerance) is right
            assert (made.score_answer(answer, {"answer": problem.gold}) == 1.0) is right


def test_the_digest_tells_rules_apart() -> None:
    """Replies marked within a tolerance are not mixed with those marked without."""
    exact, loose = EvaluationProblem("1", "?", "3.14"), EvaluationProblem("1", "?", "3.14", tolerance=0.01)
    assert len({digest([each], {"1": []}) for each in (exact, loose)}) == 2
    assert digest([loose], {"1": []}) == digest(
        [EvaluationProblem("1", "?", "3.14", tolerance=0.01)], {"1": []}
    )


def test_a_task_makes_the_same_questions_again() -> None:
    """A task's options go with its name, and its seed alone decides the questions."""
    pytest.importorskip("reasoning_gym")
    problems = gym_problems("chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1", 3, 1)
    assert [problem.id for problem in problems] == ["chain_sum/0", "chain_sum/1", "chain_sum/2"]
    assert problems == gym_problems("chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1", 3, 1)
    few = gym_problems("chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1", 60, 1)
    assert len({problem.question for problem in few}) == 60
    with pytest.raises(DataError, match="no_such_task"):
        gym_problems("no_such_task", 3, 1)
    with pytest.raises(DataError, match="max_terms must be >= min_terms"):
        gym_problems("chain_sum:max_terms=1", 3, 1)
    with pytest.raises(DataError, match="option=value"):
        gym_problems("chain_sum:hard", 3, 1)
