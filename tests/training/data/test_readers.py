"""Problems read and written, and the fingerprint of a data set."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.instructions import instruction
from training.data.problems import DataError
from training.data.readers import (
    FIELDS,
    fingerprint,
    parse_problems,
    problem_json,
    read_answered,
    read_problems,
)
from training.types import Problem, ProgramCase

texts = st.text(min_size=1, max_size=10).filter(lambda text: text.strip() == text)
sums = st.builds(
    lambda name, question, gold, source: Problem(name, question, gold, source=source),
    texts,
    texts,
    st.integers().map(str),
    texts,
)
cases = st.lists(
    st.builds(ProgramCase, st.text(max_size=5), st.text(max_size=5), st.none() | st.floats(0.5, 9)),
    min_size=1,
    max_size=3,
)
programs = st.builds(
    lambda name, question, tests, cases: Problem(
        name, question, reward="tests", tests=tests, source="code", cases=tuple(cases)
    ),
    texts,
    texts,
    st.sampled_from(["", "assert f(1) == 2"]),
    cases,
)
problem_lists = st.lists(sums | programs, min_size=1, max_size=5, unique_by=lambda problem: problem.id)


def test_the_fields_of_the_known_sets_are_read() -> None:
    """GSM8K's answer stands behind ####, MATH-500 has a problem, and a number may be an answer."""
    lines = [
        json.dumps({"question": "How many?", "answer": "2+2 = <<2+2=4>>4\n#### 1,004"}),
        json.dumps(
            {
                "problem": "Solve.",
                "solution": "...",
                "answer": "\\frac{1}{2}",
                "subject": "Algebra",
                "level": 2,
                "unique_id": "test/algebra/1.json",
            }
        ),
        "",
        json.dumps({"question": "6 x 7?", "answer": 42}),
    ]
    assert parse_problems(lines) == [
        Problem("/1", "How many?", "1,004"),
        Problem("/2", "Solve.", "\\frac{1}{2}"),
        Problem("/4", "6 x 7?", "42"),
    ]


def test_code_sets_are_read() -> None:
    """A line of APPS or TACO has cases and no answer, so the tests judge it."""
    apps = {
        "problem_id": 7,
        "question": "Add two numbers.",
        "solutions": "[]",
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "difficulty": "introductory",
        "url": "https://example.org",
        "starter_code": "",
        "time_limit": "2.0 seconds",
    }
    assert parse_problems([json.dumps(apps)], source="apps") == [
        Problem(
            "apps/1",
            "Add two numbers.",
            reward="tests",
            source="apps",
            cases=(ProgramCase("1 2\n", "3\n", 2.0),),
        )
    ]


def test_every_reward_may_stand_in_one_file() -> None:
    """A line has an answer, or names another reward and has what that needs."""
    lines = [
        json.dumps({"question": "2+2?", "answer": "so\n#### 4"}),
        "",
        json.dumps({"question": "Add.", "reward": "tests", "tests": "assert add(1, 2) == 3", "id": "add"}),
        json.dumps({"problem": "Hi", "reward": "rubric", "rubric": "Polite?", "general": True}),
        json.dumps({"question": "Hm?", "reward": "checks", "checks": [{"kind": "no_commas"}], "source": "s"}),
        json.dumps({"question": "Hi", "reward": "preference", "pairs": [["Hello.", "What?"]]}),
        json.dumps({"question": "Add.", "cases": [{"input": "1 2", "output": "3"}]}),
    ]
    assert parse_problems(lines, source="set") == [
        Problem("set/1", "2+2?", "4", source="set"),
        Problem("add", "Add.", reward="tests", tests="assert add(1, 2) == 3", source="set"),
        Problem("set/4", "Hi", reward="rubric", rubric="Polite?", general=True, source="set"),
        Problem("s/5", "Hm?", reward="checks", checks=({"kind": "no_commas"},), source="s"),
        Problem("set/6", "Hi", reward="preference", pairs=(("Hello.", "What?"),), source="set"),
        Problem("set/7", "Add.", reward="tests", cases=(ProgramCase("1 2", "3"),), source="set"),
    ]


def test_null_is_as_good_as_left_out() -> None:
    """Sets from tables have a null where a column says nothing."""
    line = dict.fromkeys(FIELDS) | {"question": "2+2?", "answer": 4}
    assert parse_problems([json.dumps(line)]) == [Problem("/1", "2+2?", "4")]


@pytest.mark.parametrize("read", [read_problems, read_answered])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"answer": "4"}', "needs a question"),
        ('{"question": " ", "answer": "4"}', "needs a question"),
        ('{"reward": "rubric"}', "needs a question"),
        ('{"question": "2+2?"}', "needs an answer"),
        ('{"question": "2+2?", "answer": ["4"]}', "needs an answer"),
        ('{"question": "2+2?", "answer": true}', "needs an answer"),
        ('{"question": "2+2?", "answer": "so\\n#### "}', "the answer is empty"),
        ('{"question": "2+2?", "answer": "4", "tolerance": -1}', "a tolerance is a number over 0"),
        ('{"question": "2+2?", "answer": "4", "tolerance": NaN}', "a tolerance is a number over 0"),
        ('{"question": "2+2?", "answer": "4", "tolerance": "1"}', "a tolerance is a number over 0"),
        ('{"question": "Pi?", "answer": "3", "tolerance": 0}', "a tolerance is a number over 0"),
        ('{"question": "Hi", "reward": "rubric", "tolerance": "wide"}', "a tolerance is a number"),
        ('{"question": "Hi", "reward": "tests"}', "the reward 'tests' needs tests or cases"),
        ('{"question": "Hi", "reward": "tests", "tests": ["a"]}', "tests must be a text"),
        ('{"question": "Hi", "reward": "checks", "checks": []}', "the reward 'checks' needs checks"),
        ('{"question": "Hi", "reward": "checks", "checks": ["a"]}', "checks is a list of objects"),
        ('{"question": "Hi", "reward": ["a"]}', "the reward must be a name"),
        ('{"question": "Hi", "answer": 1, "general": "yes"}', "general must be true or false"),
        ('{"question": "Hi", "answer": 1, "pairs": [["a"]]}', "pairs is a list of [liked, not liked]"),
        ('{"question": "Hi", "cases": [{"input": "1"}]}', "cases are"),
        ('{"question": "2+2?", "anwser": "4"}', "unknown field 'anwser'; allowed: answer, cases, "),
    ],
)
def test_a_bad_line_is_named(
    tmp_path: Path, read: Callable[[Path], list[Problem]], line: str, message: str
) -> None:
    """The message names the file, the line's number and what is wrong with it."""
    path = tmp_path / "set.jsonl"
    path.write_text(f'{{"question": "1+1?", "answer": "2"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}, line 2: {message}")


@pytest.mark.parametrize("read", [read_problems, read_answered])
def test_a_file_that_can_t_be_read_is_named(tmp_path: Path, read: Callable[[Path], list[Problem]]) -> None:
    """A broken file, an empty one and a missing one are errors."""
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "1+1?", "answer": "2"}\n')[:15])
    with pytest.raises(DataError, match=r"set\.jsonl\.gz can't be read"):
        read(path)
    path.write_bytes(b"\n")
    with pytest.raises(DataError, match=r"set\.jsonl\.gz: holds no questions"):
        read(path)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "missing")


def test_a_file_names_its_source(tmp_path: Path) -> None:
    """The source makes ids of several files differ; a file may be gzipped."""
    path = tmp_path / "sums.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "1+1?", "answer": 2}\n'))
    assert read_problems(path) == [Problem("sums/1", "1+1?", "2", source="sums")]
    assert read_problems(path, "other")[0].id == "other/1"


def test_an_evaluation_needs_answers_and_counts_lines(tmp_path: Path) -> None:
    """Ids are the lines' numbers, whatever ids the lines give; a line without an answer is an error."""
    path = tmp_path / "set.jsonl"
    lines = ['{"question": "1+1?", "answer": 2, "id": "a"}', "", '{"problem": "1+2?", "answer": 3}']
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [(problem.id, problem.gold) for problem in read_answered(path)] == [("1", "2"), ("3", "3")]
    path.write_text('{"question": "Hi", "reward": "rubric"}', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: needs an answer"):
        read_answered(path)


def test_a_line_may_state_a_tolerance() -> None:
    """The problem has it and is written with it; problems without one are written without."""
    line = {"id": "1", "question": "Pi?", "answer": "3.1416", "tolerance": 0.01, "reward": "correct"}
    (problem,) = parse_problems([json.dumps(line)], source="set")
    assert problem.tolerance == 0.01
    assert problem_json(problem) == line | {"source": "set"}
    assert "tolerance" not in problem_json(Problem("1", "1+1?", "2"))


@given(problem_lists)
def test_problems_are_read_as_they_were_written(problems: list[Problem]) -> None:
    """Writing problems and reading them again changes neither them nor their fingerprint."""
    problems = [*problems, instruction(0, len(problems))]
    read = parse_problems([json.dumps(problem_json(problem)) for problem in problems])
    assert [problem_json(problem) for problem in read] == [problem_json(problem) for problem in problems]
    assert fingerprint(read) == fingerprint(problems)


@given(problem_lists, st.data())
def test_any_change_changes_the_fingerprint(problems: list[Problem], data: st.DataObject) -> None:
    """Other problems, another order and another answer are other data."""
    index = data.draw(st.integers(0, len(problems) - 1))
    changed = replace(problems[index], gold=f"{problems[index].gold}0")
    variants = [
        problems,
        problems[:index] + problems[index + 1 :],
        [*problems[:index], changed, *problems[index + 1 :]],
    ]
    if len(problems) > 1:
        variants.append(problems[1:] + problems[:1])
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert len(fingerprint(problems)) == 64


def test_a_fingerprint_stays_what_it_was() -> None:
    """Runs recorded it, and go on with their data only while it is the same."""
    problem = Problem("a/1", "Pi?", "3.14", source="a", tolerance=0.01, extra={"chains": {"low": "3"}})
    assert fingerprint([problem]).startswith("7afcaacfe18d5ae2")
