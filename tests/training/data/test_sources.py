"""Problems by the kinds of their sources."""

from pathlib import Path

import pytest

from training.config import Source
from training.data.problems import DataError
from training.data.sources import SOURCES, collect, held_out


def source(kind: str, **fields: object) -> Source:
    """Return a source as a configuration gives it."""
    return Source.model_validate({"kind": kind, **fields})


def test_a_seed_decides_the_problems() -> None:
    """The same seed gives the same problems, each question once."""
    sources = [source("additions", digits=2), source("stories")]
    problems = collect(sources, 200, seed=3)
    assert len({problem.question for problem in problems}) == len(problems) == 200
    assert problems == collect(sources, 200, seed=3)
    assert problems != collect(sources, 200, seed=4)
    assert {problem.source for problem in problems} == {"additions", "stories"}


def test_weights_are_shares_of_the_draws() -> None:
    """A source with three times the weight gives about three times the problems."""
    problems = collect([source("additions", weight=3), source("stories", weight=1)], 400, seed=0)
    assert 0.6 < sum(problem.source == "additions" for problem in problems) / 400 < 0.9


def test_held_out_questions_are_left_out_of_training() -> None:
    """Even where the questions are few, none is both for training and held out."""
    sources = [source("additions", digits=1)]
    evaluation = held_out(sources, 20)
    problems = collect(sources, 50, seed=0, without=[problem.question for problem in evaluation])
    assert not {problem.question for problem in problems} & {problem.question for problem in evaluation}
    assert problems


def test_a_small_source_runs_dry(tmp_path: Path) -> None:
    """A small file gives all its problems once, and no more."""
    file = tmp_path / "few.jsonl"
    file.write_text(
        '{"question": "1+1?", "answer": 2}\n{"question": "1+2?", "answer": 3}\n', encoding="utf-8"
    )
    problems = collect([source("jsonl", path=file)], 10, seed=0)
    assert sorted(problem.gold or "" for problem in problems) == ["2", "3"]


def test_no_two_problems_have_one_id(tmp_path: Path) -> None:
    """Neither do files of the same name nor lines with the same id: replies are stored by it."""
    lines = (
        ['{"question": "1+1?", "answer": 2}', '{"question": "1+2?", "answer": 3}'],
        [
            '{"question": "How many legs has a bird?", "answer": 2}',
            '{"question": "2+2?", "answer": 4, "id": "a"}',
        ],
        ['{"question": "2+3?", "answer": 5, "id": "a"}'],
    )
    sources = []
    for number, file_lines in enumerate(lines):
        path = tmp_path / str(number) / "train.jsonl"
        path.parent.mkdir()
        path.write_text("\n".join(file_lines), encoding="utf-8")
        sources.append(source("jsonl", path=path))
    problems = collect(sources, 10, seed=0)
    assert len({problem.id for problem in problems}) == len(problems) == 5


@pytest.mark.parametrize("kind", ["functions", "instructions"])
def test_our_own_problems_name_their_reward(kind: str) -> None:
    """Function problems carry tests, instructions carry checks."""
    problem = collect([source(kind)], 1, seed=0)[0]
    assert (problem.reward, bool(problem.tests), bool(problem.checks)) == (
        ("tests", True, False) if kind == "functions" else ("checks", False, True)
    )


@pytest.mark.parametrize(
    ("incomplete", "message"),
    [
        (source("no such"), "no source is called 'no such'; there are additions"),
        (source("gym"), "needs a task and a count"),
        (source("jsonl"), "needs a path"),
        (source("hub"), "needs a name"),
        (source("recorded"), "needs a path"),
    ],
)
def test_an_incomplete_source_is_an_error(incomplete: Source, message: str) -> None:
    """The message says what it needs."""
    with pytest.raises(DataError, match=message):
        collect([incomplete], 1, seed=0)


def test_every_kind_is_in_the_table() -> None:
    """The table is the one place where kinds are named."""
    assert set(SOURCES) == {
        "additions",
        "errands",
        "functions",
        "gym",
        "hub",
        "instructions",
        "jsonl",
        "recorded",
        "stories",
    }
