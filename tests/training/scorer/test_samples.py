"""The policy's samples: how they are labelled, saved and handed to the gate."""

from dataclasses import replace
from pathlib import Path

from gateway.recordings.reader import read_questions
from policies.thinking import Markup
from scorers.confidence import ConfidenceScorer
from scorers.trained import Case
from tests.training.scorer.additions import WORKED, addition, sampled
from training.data.prompts import Prompt
from training.scorer.samples import LabelledReply, ask, classes, problem, read_asked, write_asked
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
    (found,) = ask(lambda prompts: [drawn for _ in prompts], Prompting(), [addition()], ["low"])  # type: ignore[arg-type]
    assert found.budget == "low"
    assert found.replies == (
        LabelledReply("hm", "It is 579.", True, True, 2),
        LabelledReply("", "580", False, True, 1),
        LabelledReply("", "579", False, False, 1),
    )


def test_what_is_saved_is_read_again_and_replayed(tmp_path: Path) -> None:
    """By `thinkgate replay` too, with the same labels and tokens."""
    held = [sampled("579", "five", "580"), sampled("579", budget=None, finished=False)]
    held.append(replace(held[0], row=replace(held[0].row, tolerance=0.01)))
    write_asked(tmp_path / "x.jsonl", held)
    assert read_asked(tmp_path / "x.jsonl") == held
    first, second, _ = read_questions(tmp_path / "x.jsonl", ConfidenceScorer())
    assert [(s.correct, s.tokens) for s in first.samples] == [(True, 5), (False, 5), (False, 5)]
    assert second.samples[0].truncated


def test_equal_answers_are_one_class() -> None:
    """By the grader's equality; a reply that was cut off has none."""
    assert classes(sampled("579", "579.0", "580")) == [0, 0, 2]
    assert classes(sampled("579", finished=False)) == [None]


def test_the_gate_sees_what_may_vote() -> None:
    """A reply that the scorer has no opinion on counts as the mean of the others, as in the vote."""
    found = problem(sampled("579", "580", "579"), [0.9, 0.1, None])
    assert found.groups == (0, 1, 0)
    assert found.correct == (True, False, True)
    assert found.scores == (0.9, 0.1, 0.5)
    assert problem(sampled("579", finished=False), [0.9]).correct == ()


def test_a_classifier_is_given_what_serving_gives_it() -> None:
    """Question, answer, thinking; no budget."""
    assert sampled("579").cases() == [Case("What is 123+456?", "579", WORKED)]
