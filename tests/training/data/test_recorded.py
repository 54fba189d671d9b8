"""Recorded traffic with feedback, and sets of the hub, as rows."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.traffic import record
from training.config import Source
from training.data.hub import HubSet, hub_problems, problems_of_records
from training.data.problems import DataError
from training.data.readers import parse_problems, problem_json
from training.data.recorded import rated_rows, recorded_preferences, recorded_rows
from training.data.sources import collect
from training.types import Problem


def recorded(path: Path, *requests: dict[str, Any]) -> Path:
    """A file of recorded requests."""
    file = path / "traffic.jsonl"
    file.write_text("\n".join(map(json.dumps, requests)), encoding="utf-8")
    return file


def sample(answer: str | None, **more: Any) -> dict[str, Any]:
    """One sample as the gateway records it."""
    return {"text": f"So: {answer}.", "answer": answer, "finish_reason": "stop", **more}


SAMPLES = [sample("41"), sample("42"), sample("42.0")]


def test_feedback_tells_right_answers(tmp_path: Path) -> None:
    """A given answer is gold, and so is the winner's where it was called right; the rest has no label."""
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "winner": 1, "feedback": {"answer": " 43 "}},
        {"question": "b?", "samples": SAMPLES, "winner": 1, "feedback": {"correct": True}},
        {"question": "c?", "samples": SAMPLES, "winner": 1, "feedback": {"correct": False}},
        {"question": "d?", "samples": SAMPLES, "winner": 1, "feedback": {"rating": 1}},
        {"question": "e?", "samples": SAMPLES[:1], "winner": None, "feedback": {"correct": True}},
        {"question": "f?", "samples": SAMPLES, "winner": None, "feedback": {"correct": True}},
        {"samples": SAMPLES, "winner": 1, "feedback": {"correct": True}},
    )
    rows = recorded_rows(file)
    assert {row.question: row.gold for row in rows} == {"a?": "43", "b?": "42", "e?": "41"}
    assert {row.reward for row in rows} == {"correct"}
    assert {row.question for row in recorded_rows(file, unlabelled=True) if row.reward == "majority"} == {
        "c?",
        "d?",
        "f?",
    }


def test_feedback_is_joined_by_its_id(tmp_path: Path) -> None:
    """As the gateway writes it, feedback is a later line; several add up, and the last word counts."""
    file = recorded(
        tmp_path,
        {"id": "x", "question": "a?", "samples": SAMPLES, "winner": 1},
        {"id": "y", "question": "b?", "samples": SAMPLES, "winner": 1},
        {"feedback": {"id": "x", "correct": False}, "time": "now"},
        {"feedback": {"id": "x", "rating": 1, "comment": "hm"}},
        {"feedback": {"id": "x", "correct": True}},
        {"feedback": {"id": "lost", "correct": True}},
    )
    assert [(row.question, row.gold) for row in recorded_rows(file)] == [("a?", "42")]
    assert [pair.chosen for pair in recorded_preferences(file)] == ["So: 42."]


def test_the_latest_word_counts(tmp_path: Path) -> None:
    """A question asked twice is one row, and a label is never lost to a later request without one."""
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "1"}},
        {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "2"}},
        {"question": "a?", "samples": SAMPLES},
    )
    assert [row.gold for row in recorded_rows(file, unlabelled=True)] == ["2"]


def test_ratings_make_preferences(tmp_path: Path) -> None:
    """A liked winner beats a sample that answers otherwise, a disliked one loses; copies are no pair."""
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "winner": 1, "feedback": {"rating": 1}},
        {"question": "b?", "samples": SAMPLES, "winner": 1, "feedback": {"rating": -1}},
        {"question": "c?", "samples": SAMPLES[1:], "winner": 0, "feedback": {"correct": True}},
        {"question": "d?", "samples": SAMPLES, "winner": 1},
        {"question": "e?", "samples": [sample("1"), sample(None, finish_reason="length")], "winner": 0,
         "feedback": {"rating": 1}},
        {"question": "f?", "samples": [sample(None), {"text": "Other."}], "winner": 0,
         "feedback": {"rating": 1}},
    )  # fmt: skip
    pairs = recorded_preferences(file)
    assert [(pair.problem.question, pair.chosen, pair.rejected) for pair in pairs] == [
        ("a?", "So: 42.", "So: 41."),
        ("b?", "So: 41.", "So: 42."),
        ("f?", "So: None.", "Other."),
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"question": "a?"}', '{"question": "a?", "samples": [1]}'])
def test_what_is_no_recording_is_told(tmp_path: Path, line: str) -> None:
    """The line is named."""
    file = tmp_path / "traffic.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        recorded_rows(file)


def test_torn_lines_are_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rest of the file is used."""
    file = recorded(tmp_path, {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "1"}})
    file.write_text(f'{{"question": "torn\n{file.read_text(encoding="utf-8")}\n{{"id"', encoding="utf-8")
    assert [row.gold for row in recorded_rows(file)] == ["1"]
    assert "2 lines could not be read and were skipped, the first at line 1." in caplog.text


def test_what_may_not_be_used_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key whose requests are not for training is respected, and the log says how many lines that were."""
    feedback = {"answer": "1", "rating": 1}
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "winner": 1, "feedback": feedback, "training_allowed": False},
        {"question": "b?", "samples": SAMPLES, "winner": 1, "feedback": feedback, "training_allowed": True},
    )
    assert [row.question for row in recorded_rows(file, unlabelled=True)] == ["b?"]
    assert [row.question for row in rated_rows(file)] == ["b?"]
    assert "1 line was left out, as its key doesn't allow training." in caplog.text


def test_records_of_any_set_become_rows() -> None:
    """Columns are named where they are called otherwise, and fixed fields go to every row."""
    wanted = HubSet(
        "org/code",
        columns={"question": "prompt", "tests": "test"},
        fixed={"reward": "tests", "general": True},
    )
    records = [{"prompt": "Add.", "test": "assert add(1, 2) == 3", "difficulty": 3}]
    assert problems_of_records(records, wanted) == [
        Problem("code/1", "Add.", reward="tests", tests="assert add(1, 2) == 3", source="code", general=True)
    ]
    gsm = problems_of_records([{"question": "2+2?", "answer": "it is\n#### 4"}], HubSet("openai/gsm8k"))
    assert gsm == [Problem("gsm8k/1", "2+2?", "4", source="gsm8k")]
    with pytest.raises(DataError, match="no column 'prompt'; there are question"):
        problems_of_records([{"question": "2+2?"}], wanted)


def test_without_the_library_a_set_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is only asked for where a set is."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install"):
        hub_problems(HubSet("openai/gsm8k"))


def test_what_the_gateway_records_is_a_training_set(tmp_path: Path) -> None:
    """A right answer is gold, a rating a pair, several of one question are one row; silence is neither."""
    path = tmp_path / "traffic.jsonl"
    right, wrong = "It is \\boxed{7}.", "It is \\boxed{8}."
    record(
        path,
        [
            ("What is 3 + 4?", (right, right, wrong), {"rating": 1}),
            ("What is 3 + 4?", (wrong, right, wrong), {"rating": -1}),
            ("What is 4 + 4?", (right, right, wrong), {"correct": False, "answer": "8"}),
            ("What is 2 + 5?", (right, right, right), {"correct": True}),
            ("What is 1 + 6?", (right, right, wrong), None),
        ],
    )
    source = {"kind": "recorded", "path": path}
    rated = {row.question: row for row in collect([Source(**source, ratings=True)], 9, seed=0)}
    assert {question: row.pairs for question, row in rated.items()} == {
        "What is 3 + 4?": ((right, wrong),),
        "What is 4 + 4?": ((wrong, right),),
    }
    assert {(row.reward, row.general) for row in rated.values()} == {("preference", True)}
    told = {row.question: (row.reward, row.gold) for row in collect([Source(**source)], 9, seed=0)}
    assert told == {"What is 4 + 4?": ("correct", "8"), "What is 2 + 5?": ("correct", "7")}
    every = collect([Source(**source, unlabelled=True)], 9, seed=0)
    assert {row.question for row in every if row.reward == "majority"} == {"What is 3 + 4?", "What is 1 + 6?"}
    lines = [json.dumps(problem_json(row)) for row in rated.values()]
    assert parse_problems(lines, source="again") == list(rated.values())


@pytest.mark.parametrize("pairs", ["ab", [["a"]], [["a", 1]], [{"a": "b"}], [["a", "b", "c"]]])
def test_pairs_are_two_texts_each(pairs: object) -> None:
    """Anything else is named with its line."""
    line = json.dumps({"question": "Hi!", "reward": "preference", "pairs": pairs})
    with pytest.raises(DataError, match="line 1: pairs is a list"):
        parse_problems([line], source="x")
