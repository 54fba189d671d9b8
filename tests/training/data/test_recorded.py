"""Recorded traffic with feedback, and data sets of the hub, become training problems."""

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
from training.data.recorded import rated_problems, recorded_preferences, recorded_problems
from training.data.sources import collect
from training.types import Problem


def recorded(path: Path, *requests: dict[str, Any]) -> Path:
    """Write a file of recorded requests."""
    file = path / "traffic.jsonl"
    file.write_text("\n".join(map(json.dumps, requests)), encoding="utf-8")
    return file


def sample(answer: str | None, **more: Any) -> dict[str, Any]:
    """Return one sample as the gateway records it."""
    return {"text": f"So: {answer}.", "answer": answer, "finish_reason": "stop", **more}


SAMPLES = [sample("41"), sample("42"), sample("42.0")]


def test_feedback_tells_right_answers(tmp_path: Path) -> None:
    """A given answer is gold, and so is that of a winner called right; other questions have no label."""
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
    rows = recorded_problems(file)
    assert {row.question: row.gold for row in rows} == {"a?": "43", "b?": "42", "e?": "41"}
    assert {row.reward for row in rows} == {"correct"}
    assert {row.question for row in recorded_problems(file, unlabelled=True) if row.reward == "majority"} == {
        "c?",
        "d?",
        "f?",
    }


def test_feedback_is_joined_by_its_id(tmp_path: Path) -> None:
    """Feedback is a later line; several lines add up, and the last word counts."""
    file = recorded(
        tmp_path,
        {"id": "x", "question": "a?", "samples": SAMPLES, "winner": 1},
        {"id": "y", "question": "b?", "samples": SAMPLES, "winner": 1},
        {"feedback": {"id": "x", "correct": False}, "time": "now"},
        {"feedback": {"id": "x", "rating": 1, "comment": "hm"}},
        {"feedback": {"id": "x", "correct": True}},
        {"feedback": {"id": "lost", "correct": True}},
    )
    assert [(row.question, row.gold) for row in recorded_problems(file)] == [("a?", "42")]
    assert [pair.chosen for pair in recorded_preferences(file)] == ["So: 42."]


def test_the_latest_word_counts(tmp_path: Path) -> None:
    """A repeated question is one problem, and a later request without a label never removes a label."""
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "1"}},
        {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "2"}},
        {"question": "a?", "samples": SAMPLES},
    )
    assert [row.gold for row in recorded_problems(file, unlabelled=True)] == ["2"]


def test_ratings_make_preferences(tmp_path: Path) -> None:
    """A liked winner beats a sample with another answer, a disliked one loses; equal answers are no pair."""
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
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, line: str) -> None:
    """The message names the line."""
    file = tmp_path / "traffic.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        recorded_problems(file)


def test_torn_lines_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rest of the file is used, and the log gives their number."""
    file = recorded(tmp_path, {"question": "a?", "samples": SAMPLES, "feedback": {"answer": "1"}})
    file.write_text(f'{{"question": "torn\n{file.read_text(encoding="utf-8")}\n{{"id"', encoding="utf-8")
    assert [row.gold for row in recorded_problems(file)] == ["1"]
    assert "2 lines could not be read and were skipped, the first at line 1." in caplog.text


def test_lines_that_forbid_training_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log gives their number."""
    feedback = {"answer": "1", "rating": 1}
    file = recorded(
        tmp_path,
        {"question": "a?", "samples": SAMPLES, "winner": 1, "feedback": feedback, "training_allowed": False},
        {"question": "b?", "samples": SAMPLES, "winner": 1, "feedback": feedback, "training_allowed": True},
    )
    assert [row.question for row in recorded_problems(file, unlabelled=True)] == ["b?"]
    assert [row.question for row in rated_problems(file)] == ["b?"]
    assert "1 line was left out, as its key doesn't allow training." in caplog.text


def test_records_of_any_set_become_problems() -> None:
    """`columns` maps the set's names to ours, and `fixed` fields go into every problem."""
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
    """Only a source of this kind needs the library."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install"):
        hub_problems(HubSet("openai/gsm8k"))


def test_recorded_traffic_is_a_training_set(tmp_path: Path) -> None:
    """A correct answer is gold, a rating a pair, and a repeated question one problem."""
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
    labels = {row.question: (row.reward, row.gold) for row in collect([Source(**source)], 9, seed=0)}
    assert labels == {"What is 4 + 4?": ("correct", "8"), "What is 2 + 5?": ("correct", "7")}
    every = collect([Source(**source, unlabelled=True)], 9, seed=0)
    assert {row.question for row in every if row.reward == "majority"} == {"What is 3 + 4?", "What is 1 + 6?"}
    lines = [json.dumps(problem_json(row)) for row in rated.values()]
    assert parse_problems(lines, source="again") == list(rated.values())


@pytest.mark.parametrize("pairs", ["ab", [["a"]], [["a", 1]], [{"a": "b"}], [["a", "b", "c"]]])
def test_pairs_are_two_texts_each(pairs: object) -> None:
    """Anything else is refused with its line."""
    line = json.dumps({"question": "Hi!", "reward": "preference", "pairs": pairs})
    with pytest.raises(DataError, match="line 1: pairs is a list"):
        parse_problems([line], source="x")
