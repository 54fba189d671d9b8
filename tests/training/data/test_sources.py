"""Rows by the names of their sources."""

from pathlib import Path

import pytest

from training.config import Source
from training.data.problems import DataError
from training.data.sources import SOURCES, collect, held_out


def source(kind: str, **fields: object) -> Source:
    """A source as a configuration gives it."""
    return Source.model_validate({"kind": kind, **fields})


def test_rows_are_different_and_the_same_for_the_same_seed() -> None:
    """A seed gives its rows, each question once."""
    sources = [source("additions", digits=2), source("stories")]
    rows = collect(sources, 200, seed=3)
    assert len({row.question for row in rows}) == len(rows) == 200
    assert rows == collect(sources, 200, seed=3)
    assert rows != collect(sources, 200, seed=4)
    assert {row.source for row in rows} == {"additions", "stories"}


def test_weights_are_shares_of_the_draws() -> None:
    """A source with three times the weight gives about three times the rows."""
    rows = collect([source("additions", weight=3), source("stories", weight=1)], 400, seed=0)
    assert 0.6 < sum(row.source == "additions" for row in rows) / 400 < 0.9


def test_held_out_questions_are_left_out_of_training() -> None:
    """Even where the questions are few, none is both trained on and held out."""
    sources = [source("additions", digits=1)]
    kept = held_out(sources, 20)
    rows = collect(sources, 50, seed=0, without=[row.question for row in kept])
    assert not {row.question for row in rows} & {row.question for row in kept}
    assert rows


def test_sources_that_run_dry_give_what_there_is(tmp_path: Path) -> None:
    """A small file gives all its rows once."""
    file = tmp_path / "few.jsonl"
    file.write_text(
        '{"question": "1+1?", "answer": 2}\n{"question": "1+2?", "answer": 3}\n', encoding="utf-8"
    )
    rows = collect([source("jsonl", path=file)], 10, seed=0)
    assert sorted(row.gold or "" for row in rows) == ["2", "3"]


def test_no_two_rows_have_one_id(tmp_path: Path) -> None:
    """Not those of files of one name, nor lines that give themselves the same: replies are kept by it."""
    lines = (
        ['{"question": "1+1?", "answer": 2}', '{"question": "1+2?", "answer": 3}'],
        [
            '{"question": "How many legs has a bird?", "answer": 2}',
            '{"question": "2+2?", "answer": 4, "id": "a"}',
        ],
        ['{"question": "2+3?", "answer": 5, "id": "a"}'],
    )
    sources = []
    for number, each in enumerate(lines):
        path = tmp_path / str(number) / "train.jsonl"
        path.parent.mkdir()
        path.write_text("\n".join(each), encoding="utf-8")
        sources.append(source("jsonl", path=path))
    rows = collect(sources, 10, seed=0)
    assert len({row.id for row in rows}) == len(rows) == 5


@pytest.mark.parametrize("kind", ["functions", "instructions"])
def test_rows_written_here_name_what_judges_them(kind: str) -> None:
    """Function problems carry tests, instructions carry checks."""
    row = collect([source(kind)], 1, seed=0)[0]
    assert (row.reward, bool(row.tests), bool(row.checks)) == (
        ("tests", True, False) if kind == "functions" else ("checks", False, True)
    )


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (source("no such"), "no source is called 'no such'; there are additions"),
        (source("gym"), "needs a task and a count"),
        (source("jsonl"), "needs a path"),
        (source("hub"), "needs a name"),
        (source("recorded"), "needs a path"),
    ],
)
def test_what_a_source_misses_is_said(wanted: Source, told: str) -> None:
    """An incomplete source is refused in one sentence."""
    with pytest.raises(DataError, match=told):
        collect([wanted], 1, seed=0)


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
