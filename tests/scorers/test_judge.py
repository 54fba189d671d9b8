"""A language model as judge."""

import re
from typing import Any

import pytest

from scorers.calibration import Calibration
from scorers.judge import JudgeScorer, yes_probability
from scorers.types import Sample
from tests.scorers.models import Oracle, nobody

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4?"}]
SAMPLES = [Sample(0, "It is 8."), Sample(1, "Seven."), Sample(2, "It is 7.")]


def number_of(prompt: str, text: str) -> str:
    """Return the number under which the judge sees a reply."""
    match = re.search(rf"<reply number=(\d+)>\n{re.escape(text)}\n", prompt)
    assert match is not None
    return match[1]


async def test_the_picked_reply_has_all_the_weight() -> None:
    """The reply that the judge picks gets all the weight, wherever it stands."""
    judge = Oracle(lambda prompt: f"It is number \\boxed{{{number_of(prompt, 'Seven.')}}}.")
    assert await JudgeScorer().score(MESSAGES, SAMPLES, judge) == [0.0, 1.0, 0.0]


async def test_a_bias_for_the_first_place_decides_nothing() -> None:
    """Each order appears in reverse as well, so a bias for one place splits its weight."""
    first = Oracle(lambda prompt: "\\boxed{1}")
    weights = await JudgeScorer(rounds=2).score(MESSAGES, SAMPLES, first)
    assert sorted(weight or 0.0 for weight in weights) == [0.0, 0.5, 0.5]


async def test_the_same_seed_shows_the_same_orders() -> None:
    """The same request gets the same orders; another seed gives others."""
    prompts = []
    for seed in (1, 1, 2):
        judge = Oracle(lambda prompt: "\\boxed{1}")
        await JudgeScorer(seed=seed, rounds=4).score(MESSAGES, [*SAMPLES, Sample(3, "No idea.")], judge)
        prompts.append(judge.prompts)
    assert prompts[0] == prompts[1] != prompts[2]


@pytest.mark.parametrize(
    "reply", ["I like none of them.", "\\boxed{9}", "\\boxed{0}", "\\boxed{1.5}", "", "(A)"]
)
@pytest.mark.parametrize("method", ["pick", "grade"])
async def test_an_unreadable_judgement_is_no_opinion(reply: str, method: Any) -> None:
    """A judge that names no reply, or one that does not exist, has no opinion."""
    if method == "grade" and any(digit in reply for digit in "0159"):
        reply = "\\boxed{11}"
    assert await JudgeScorer(method).score(MESSAGES, SAMPLES, Oracle(lambda _: reply)) == [None] * 3


async def test_a_judgement_that_was_cut_off_is_no_opinion() -> None:
    """A judgement that was cut off does not count, because its number may be one on the way."""
    cut = Oracle(lambda _: "Perhaps \\boxed{1}", finish_reason="length")
    assert await JudgeScorer().score(MESSAGES, SAMPLES, cut) == [None] * 3


async def test_grades_are_over_ten() -> None:
    """Each sample gets its own grade; one whose grade is unreadable has no weight."""

    def grade(prompt: str) -> str:
        return "\\boxed{8}" if "Seven." in prompt else "\\boxed{2.5}" if "It is 7." in prompt else "Well."

    judge = Oracle(grade)
    weights = await JudgeScorer("grade", rubric="Only the truth counts.").score(MESSAGES, SAMPLES, judge)
    assert weights == [None, 0.8, 0.25]
    assert all("Only the truth counts." in prompt for prompt in judge.prompts)


async def test_grading_is_capped() -> None:
    """At most `concurrency` samples are graded at a time."""
    judge = Oracle(lambda _: "\\boxed{5}")
    await JudgeScorer("grade", concurrency=2).score(MESSAGES, SAMPLES * 3, judge)
    assert judge.most == 2


async def test_the_judge_sees_the_conversation_but_no_thinking() -> None:
    """The judge reads the messages and the replies' text, as a user would."""
    judge = Oracle(lambda _: "\\boxed{1}")
    await JudgeScorer().score(MESSAGES, [Sample(0, "{seven}", "secret thoughts"), SAMPLES[1]], judge)
    [prompt, _] = judge.prompts
    assert "system: Be brief." in prompt
    assert "user: What is 3 + 4?" in prompt
    assert "{seven}" in prompt
    assert "secret thoughts" not in prompt


async def test_long_candidates_are_cut_alike() -> None:
    """The prompt shows only so many characters, of each candidate its end."""
    judge = Oracle(lambda _: "\\boxed{1}")
    long = [Sample(i, "x" * 5000 + f" end {i}") for i in range(4)]
    await JudgeScorer(characters=400).score(MESSAGES, long, judge)
    assert all(f"end {i}\n" in judge.prompts[0] for i in range(4))
    assert len(judge.prompts[0]) < 2000


async def test_the_judge_may_be_another_model() -> None:
    """The settings give the judge's model, budget and length."""
    judge = Oracle(lambda _: "\\boxed{1}")
    await JudgeScorer(model="big", budget="low", max_tokens=64, rounds=1).score(MESSAGES, SAMPLES, judge)
    assert judge.params == [{"temperature": 0, "max_tokens": 64, "reasoning_effort": "low", "model": "big"}]


async def test_a_single_sample_needs_no_pick() -> None:
    """A single sample needs no judge."""
    assert await JudgeScorer().score(MESSAGES, SAMPLES[:1], nobody()) == [None]


async def test_a_check_asks_about_each_different_answer_once() -> None:
    """The question is in the words of the training; yes and no become weights, shared by equal answers."""
    judge = Oracle(lambda prompt: "yes" if "7" in prompt else "no")
    scorer = JudgeScorer("check", budget="high", model="checker", rounds=1)
    samples = [Sample(0, "7"), Sample(1, "8"), Sample(2, "7"), Sample(3, " ")]
    weights = await scorer.score([{"role": "user", "content": "Sum?"}], samples, judge)
    assert weights == [0.75, 0.25, 0.75, None]
    assert judge.prompts == ["Sum? Is it 7?", "Sum? Is it 8?"]
    assert judge.params[0] | {"max_tokens": 1} == {
        "temperature": 0, "max_tokens": 1, "reasoning_effort": "high", "model": "checker",
    }  # fmt: skip


async def test_the_share_of_several_checks_is_calibrated() -> None:
    """Several rounds use a temperature, because at 0 they would all be the same."""
    reply = iter(["yes", "no", "Yes.", "perhaps"])
    judge = Oracle(lambda _: next(reply))
    doubled = Calibration(scale=2.0)
    weights = await JudgeScorer("check", rounds=4, calibration=doubled).score(
        MESSAGES, [Sample(0, "7")], judge
    )
    assert weights == [pytest.approx(doubled(2.5 / 4))]
    assert {params["temperature"] for params in judge.params} == {1}


async def test_a_check_without_yes_or_no_is_no_opinion() -> None:
    """A number, or a judgement that was cut off, is no opinion."""
    for judge in (Oracle(lambda _: "7"), Oracle(lambda _: "yes", finish_reason="length")):
        assert await JudgeScorer("check").score(MESSAGES, [Sample(0, "7")], judge) == [None]


@pytest.mark.parametrize(("yes", "count", "value"), [(0, 0, None), (1, 1, 0.75), (0, 1, 0.25), (2, 3, 0.625)])
def test_the_yes_probability_is_never_certain(yes: int, count: int, value: float | None) -> None:
    """Agreement of all judgements gives neither 0 nor 1, however many they are."""
    assert yes_probability(yes, count) == value
