"""Rows read and written, and what tells one set of data from another."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.instructions import instruction
from training.data.problems import DataError, EvaluationProblem
from training.data.readers import fingerprint, gym_rows, parse_rows, read_rows, row_json, rows_of
from training.types import Problem

texts = st.text(min_size=1, max_size=10).filter(lambda text: text.strip() == text)
rows = st.builds(
    lambda name, question, gold, source: Problem(name, question, gold, source=source),
    texts,
    texts,
    st.integers().map(str),
    texts,
)


def test_problems_and_rows_may_stand_in_one_file() -> None:
    """A line is a problem with its answer, or names another reward and has what that needs."""
    lines = [
        json.dumps({"question": "2+2?", "answer": "so\n#### 4"}),
        "",
        json.dumps({"question": "Add.", "reward": "tests", "tests": "assert add(1, 2) == 3", "id": "add"}),
        json.dumps({"problem": "Hi", "reward": "rubric", "rubric": "Polite?", "general": True}),
        json.dumps({"question": "Hm?", "reward": "checks", "checks": [{"kind": "no_commas"}], "source": "s"}),
    ]
    assert parse_rows(lines, "set") == [
        Problem("set/1", "2+2?", "4", source="set"),
        Problem("add", "Add.", reward="tests", tests="assert add(1, 2) == 3", source="set"),
        Problem("set/4", "Hi", reward="rubric", rubric="Polite?", general=True, source="set"),
        Problem("s/5", "Hm?", reward="checks", checks=({"kind": "no_commas"},), source="s"),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1: not valid JSON"),
        ("[]", "line 1: must be a JSON object"),
        ('{"question": "2+2?"}', "line 1: needs an answer"),
        ('{"question": "Hi", "reward": "tests"}', "line 1: the reward 'tests' needs tests"),
        ('{"question": "Hi", "reward": "checks", "checks": []}', "line 1: the reward 'checks' needs checks"),
        ('{"reward": "rubric"}', "line 1: needs a question"),
        ('{"question": "Pi?", "answer": "3", "tolerance": 0}', "line 1: a tolerance is a number over 0"),
        ('{"question": "Hi", "reward": "rubric", "tolerance": "wide"}', "line 1: a tolerance is a number"),
        ('{"question": "Hi", "reward": ["a"]}', "line 1: the reward must be a name"),
        ("", "holds no questions"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    """The message names the file, the line and what is wrong with it."""
    path = tmp_path / "set.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_rows(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_a_file_names_its_source(tmp_path: Path) -> None:
    """Rows of several files have different ids; a file may be gzipped."""
    path = tmp_path / "sums.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "1+1?", "answer": 2}\n'))
    assert read_rows(path) == [Problem("sums/1", "1+1?", "2", source="sums")]
    assert rows_of([EvaluationProblem("1", "1+1?", "2")], "sums") == read_rows(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DataError, match="can't be read"):
        read_rows(path)


def test_a_line_may_state_a_tolerance() -> None:
    """It stays with the row and is written again; rows without one are the lines they were."""
    line = {"id": "1", "question": "Pi?", "answer": "3.1416", "tolerance": 0.01, "reward": "correct"}
    (row,) = parse_rows([json.dumps(line)], "set")
    assert row.tolerance == 0.01
    assert row_json(row) == line | {"source": "set"}
    assert "tolerance" not in row_json(Problem("1", "1+1?", "2"))
    assert rows_of([EvaluationProblem("1", "Pi?", "3.1416", tolerance=0.01)], "s")[0].tolerance == 0.01


def test_rows_of_a_task() -> None:
    """A reasoning-gym task gives rows of that source, others for another seed."""
    pytest.importorskip("reasoning_gym")
    first, again, other = (gym_rows("chain_sum:max_terms=3", 5, seed) for seed in (1, 1, 2))
    assert first == again
    assert {row.source for row in first} == {"chain_sum"}
    assert not {row.id for row in first} & {row.id for row in other}


@given(st.lists(rows, min_size=1, max_size=5))
def test_rows_are_read_as_they_were_written(made: list[Problem]) -> None:
    """Writing rows and reading them again changes nothing; nor does it change the fingerprint."""
    made = [*made, instruction(0, len(made))]
    read = parse_rows([json.dumps(row_json(row)) for row in made], "set")
    assert [row_json(row) for row in read] == [row_json(row) for row in made]
    assert fingerprint(read) == fingerprint(made)


@given(st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row.id), st.data())
def test_any_change_changes_the_fingerprint(made: list[Problem], data: st.DataObject) -> None:
    """Other rows, another order and another answer are other data."""
    place = data.draw(st.integers(0, len(made) - 1))
    row = made[place]
    changed = Problem(row.id, row.question, f"{row.gold}0", source=row.source)
    variants = [made, made[:place] + made[place + 1 :], [*made[:place], changed, *made[place + 1 :]]]
    if len(made) > 1:
        variants.append(made[1:] + made[:1])
    assert len({fingerprint(each) for each in variants}) == len(variants)
    assert len(fingerprint(made)) == 64
