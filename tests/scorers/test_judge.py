"""The language model as judge."""

import re
from typing import Any

import pytest

from scorers.calibration import Calibration
from scorers.judge import JudgeScorer, yes_probability
from scorers.types import Sample
from tests.scorers.models import Oracle, nobody

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4?"}]
SAMPLES = [Sample(0, "It is 8."), Sample(1, "Seven."), Sample(2, "It is 7.")]


def number_of(prompt: str, text: str) -> str:
    """The number under which the judge sees a reply."""
    found = re.search(rf"<reply number=(\d+)>\n{re.escape(text)}\n", prompt)
    assert found is not None
    return found[1]


async def test_the_one_that_is_picked_has_all_the_weight() -> None:
    """In whichever place it stands."""
    judge = Oracle(lambda prompt: f"It is number \\boxed{{{number_of(prompt, 'Seven.')}}}.")
    assert await JudgeScorer().score(ASKED, SAMPLES, judge) == [0.0, 1.0, 0.0]


async def test_a_judge_that_always_takes_the_first_decides_nothing() -> None:
    """Each order is shown in reverse as well, so a bias for a place splits its weight."""
    first = Oracle(lambda prompt: "\\boxed{1}")
    weights = await JudgeScorer(rounds=2).score(ASKED, SAMPLES, first)
    assert sorted(weight or 0.0 for weight in weights) == [0.0, 0.5, 0.5]


async def test_the_same_seed_shows_the_same_orders() -> None:
    """So the same request has the same verdict; another seed shows others."""
    prompts = []
    for seed in (1, 1, 2):
        judge = Oracle(lambda prompt: "\\boxed{1}")
        await JudgeScorer(seed=seed, rounds=4).score(ASKED, [*SAMPLES, Sample(3, "No idea.")], judge)
        prompts.append(judge.prompts)
    assert prompts[0] == prompts[1] != prompts[2]


@pytest.mark.parametrize(
    "said", ["I like none of them.", "\\boxed{9}", "\\boxed{0}", "\\boxed{1.5}", "", "(A)"]
)
@pytest.mark.parametrize("method", ["pick", "grade"])
async def test_what_cannot_be_read_is_no_verdict(said: str, method: Any) -> None:
    """A judge that names nobody, or somebody who isn't there, has no opinion."""
    if method == "grade" and any(digit in said for digit in "0159"):
        said = "\\boxed{11}"
    assert await JudgeScorer(method).score(ASKED, SAMPLES, Oracle(lambda _: said)) == [None] * 3


async def test_a_verdict_that_was_cut_off_is_none() -> None:
    """Its number may be a step on the way."""
    cut = Oracle(lambda _: "Perhaps \\boxed{1}", finish_reason="length")
    assert await JudgeScorer().score(ASKED, SAMPLES, cut) == [None] * 3


async def test_grades_are_over_ten() -> None:
    """Each sample is graded by itself; one that can't be read has no weight, the others do."""

    def grade(prompt: str) -> str:
        return "\\boxed{8}" if "Seven." in prompt else "\\boxed{2.5}" if "It is 7." in prompt else "Well."

    judge = Oracle(grade)
    weights = await JudgeScorer("grade", rubric="Only the truth counts.").score(ASKED, SAMPLES, judge)
    assert weights == [None, 0.8, 0.25]
    assert all("Only the truth counts." in prompt for prompt in judge.prompts)


async def test_so_many_at_a_time() -> None:
    """Grading is capped, so that a judge isn't flooded."""
    judge = Oracle(lambda _: "\\boxed{5}")
    await JudgeScorer("grade", concurrency=2).score(ASKED, SAMPLES * 3, judge)
    assert judge.most == 2


async def test_the_judge_sees_the_conversation_but_no_thinking() -> None:
    """It reads what a user would: the messages and the replies' text."""
    judge = Oracle(lambda _: "\\boxed{1}")
    await JudgeScorer().score(ASKED, [Sample(0, "{seven}", "secret thoughts"), SAMPLES[1]], judge)
    [prompt, _] = judge.prompts
    assert "system: Be brief." in prompt
    assert "user: What is 3 + 4?" in prompt
    assert "{seven}" in prompt
    assert "secret thoughts" not in prompt


async def test_long_candidates_are_cut_alike() -> None:
    """Only so many characters are shown, of each candidate its end."""
    judge = Oracle(lambda _: "\\boxed{1}")
    long = [Sample(i, "x" * 5000 + f" end {i}") for i in range(4)]
    await JudgeScorer(characters=400).score(ASKED, long, judge)
    assert all(f"end {i}\n" in judge.prompts[0] for i in range(4))
    assert len(judge.prompts[0]) < 2000


async def test_the_judge_may_be_another_model() -> None:
    """Its name, effort and length are the settings'."""
    judge = Oracle(lambda _: "\\boxed{1}")
    await JudgeScorer(model="big", effort="low", max_tokens=64, rounds=1).score(ASKED, SAMPLES, judge)
    assert judge.params == [{"temperature": 0, "max_tokens": 64, "reasoning_effort": "low", "model": "big"}]


async def test_one_alone_needs_no_pick() -> None:
    """There is nothing to compare it with."""
    assert await JudgeScorer().score(ASKED, SAMPLES[:1], nobody()) == [None]


async def test_a_check_asks_about_each_different_answer_once() -> None:
    """In the words that the model was trained on; yes and no are weights, and equal answers share theirs."""
    judge = Oracle(lambda prompt: "yes" if "7" in prompt else "no")
    scorer = JudgeScorer("check", effort="high", model="checker", rounds=1)
    samples = [Sample(0, "7"), Sample(1, "8"), Sample(2, "7"), Sample(3, " ")]
    weights = await scorer.score([{"role": "user", "content": "Sum?"}], samples, judge)
    assert weights == [0.75, 0.25, 0.75, None]
    assert judge.prompts == ["Sum? Is it 7?", "Sum? Is it 8?"]
    assert judge.params[0] | {"max_tokens": 1} == {
        "temperature": 0, "max_tokens": 1, "reasoning_effort": "high", "model": "checker",
    }  # fmt: skip


async def test_several_checks_are_drawn_and_their_share_is_calibrated() -> None:
    """At a temperature, or they would all be the same."""
    said = iter(["yes", "no", "Yes.", "perhaps"])
    judge = Oracle(lambda _: next(said))
    doubled = Calibration(scale=2.0)
    weights = await JudgeScorer("check", rounds=4, calibration=doubled).score(ASKED, [Sample(0, "7")], judge)
    assert weights == [pytest.approx(doubled(2.5 / 4))]
    assert {params["temperature"] for params in judge.params} == {1}


async def test_a_check_that_says_neither_yes_nor_no_is_none() -> None:
    """A number, or a verdict that was cut off, is no opinion."""
    for judge in (Oracle(lambda _: "7"), Oracle(lambda _: "yes", finish_reason="length")):
        assert await JudgeScorer("check").score(ASKED, [Sample(0, "7")], judge) == [None]


@pytest.mark.parametrize(("yes", "asked", "value"), [(0, 0, None), (1, 1, 0.75), (0, 1, 0.25), (2, 3, 0.625)])
def test_belief_never_is_certainty(yes: int, asked: int, value: float | None) -> None:
    """However many agree, for the next may not."""
    assert yes_probability(yes, asked) == value
