"""The policy's samples: how they are labelled, saved and handed to the gate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.recordings.grading import grade_recording
from policies.recordings import read_recording
from policies.thinking import Markup
from scorers.confidence import ConfidenceScorer
from scorers.trained import ClassifierInput
from tests.training.scorer.additions import WORKED, addition, sampled
from training.data.problems import DataError
from training.data.prompts import Prompt
from training.scorer.samples import (
    LabelledSample,
    answer_groups,
    draw_labelled,
    gate_problem,
    read_labelled,
    write_labelled,
)
from training.types import Completion, Problem


class Prompting:
    """Prompts without a tokenizer."""

    def prompt(self, row: Problem, budget: str | None) -> Prompt:
        """The question itself."""
        return Prompt(row.question, (), Markup(), budget)


def test_replies_are_labelled_by_the_grader() -> None:
    """In whatever form the answer comes; one that was cut off is wrong, whatever stands in it."""
    drawn = [
        Completion("", (1, 2), "hm", "It is 579.", 1, True),
        Completion("", (1,), "", "580", 0, True),
        Completion("", (1,), "", "579", 0, False),
    ]
    (found,) = draw_labelled(lambda prompts: [drawn for _ in prompts], Prompting(), [addition()], ["low"])  # type: ignore[arg-type]
    assert found.level == "low"
    assert found.samples == (
        LabelledSample("hm", "It is 579.", True, True, 2),
        LabelledSample("", "580", False, True, 1),
        LabelledSample("", "579", False, False, 1),
    )


def test_what_is_saved_is_read_again_and_replayed(tmp_path: Path) -> None:
    """By `thinkgate replay` too, with the same labels and tokens."""
    held = [sampled("579", "five", "580"), sampled("579", budget=None, finished=False)]
    held.append(replace(held[0], problem=replace(held[0].problem, tolerance=0.01)))
    write_labelled(tmp_path / "x.jsonl", held)
    assert read_labelled(tmp_path / "x.jsonl") == held
    first, second, _ = grade_recording(read_recording(tmp_path / "x.jsonl"), ConfidenceScorer())
    assert [(s.correct, s.tokens) for s in first.samples] == [(True, 5), (False, 5), (False, 5)]
    assert second.samples[0].truncated


def test_samples_of_an_earlier_release_are_read(tmp_path: Path) -> None:
    """Their lines have no version, and the level alone as their budget."""
    write_labelled(tmp_path / "x.jsonl", [sampled("579"), sampled("579", budget=None)])
    fields = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line.pop("version") for line in fields} == {2}
    old = [{**line, "budget": line["budget"]["effort"]} for line in fields]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old), encoding="utf-8")
    assert read_labelled(tmp_path / "old.jsonl") == read_labelled(tmp_path / "x.jsonl")


def test_a_torn_line_of_samples_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so; a file in which nothing can be read is an error."""
    path = tmp_path / "x.jsonl"
    write_labelled(path, [sampled("579"), sampled("580")])
    path.write_bytes(path.read_bytes()[:-9])
    assert read_labelled(path) == [sampled("579")]
    assert "1 line could not be read" in caplog.text
    path.write_bytes(b"{")
    with pytest.raises(DataError, match="no line can be read"):
        read_labelled(path)


def test_equal_answers_are_one_group() -> None:
    """By the grader's equality; a reply that was cut off has none."""
    assert answer_groups(sampled("579", "579.0", "580")) == [0, 0, 2]
    assert answer_groups(sampled("579", finished=False)) == [None]


def test_the_gate_sees_what_may_vote() -> None:
    """A reply that the scorer has no opinion on counts as the mean of the others, as in the vote."""
    found = gate_problem(sampled("579", "580", "579"), [0.9, 0.1, None])
    assert found.groups == (0, 1, 0)
    assert found.correct == (True, False, True)
    assert found.scores == (0.9, 0.1, 0.5)
    assert gate_problem(sampled("579", finished=False), [0.9]).correct == ()


def test_a_classifier_is_given_what_serving_gives_it() -> None:
    """Question, answer, thinking; no budget."""
    assert sampled("579").cases() == [ClassifierInput("What is 123+456?", "579", WORKED)]
