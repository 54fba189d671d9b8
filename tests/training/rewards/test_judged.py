"""Rewards without a gold answer: the group's majority, a judge, a preference model."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stub_engine import Json, stub_engine
from tests.training.rewards.making import SUM, reply
from training.rewards import REWARDS, RewardContext, RewardError, reward_plan
from training.rewards.majority import Majority
from training.rewards.preference import Preference
from training.rewards.rubric import Judge, Rubric
from training.types import Problem

CHAT = Problem("2", "Say hello.", reward="rubric", general=True)


def answers(*values: str) -> list[float | None]:
    """The majority reward of replies with these answers."""
    return list(Majority()(SUM, [reply(f"The answer is {value}." if value else "") for value in values]))


def test_the_majority_stands_for_the_right_answer() -> None:
    """Equal answers are one class however they are written; others, and none, earn nothing."""
    assert answers("1/2", "0.5", "\\frac12", "2", "") == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "values", [("1", "2"), ("1", "1", "2", "2"), ("1", "1", "2", "3", "4"), ("1",), ("", ""), ()]
)
def test_without_a_majority_nobody_knows(values: tuple[str, ...]) -> None:
    """A tie, a class that is too small, one reply alone and no answers give no verdict at all."""
    assert answers(*values) == [None] * len(values)


def test_a_cut_reply_has_no_vote() -> None:
    """It can't join the majority, nor earn by it."""
    replies = [
        reply("The answer is 1."),
        reply("The answer is 1."),
        reply("The answer is 1.", finished=False),
    ]
    assert Majority()(SUM, replies) == [1.0, 1.0, 0.0]
    assert Majority(min_share=0.7)(SUM, replies) == [None] * 3


groups = st.lists(st.sampled_from("123"), max_size=8)


@given(groups.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_order_does_not_matter(orders: tuple[list[str], list[str]]) -> None:
    """The same replies in another order earn the same."""
    first, second = (dict(zip(order, answers(*order), strict=True)) for order in orders)
    assert first == second


def verdict(text: str, finish: str = "stop") -> Json:
    """A chat completion with this text."""
    return Json({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


async def test_a_judge_grades_each_reply() -> None:
    """The grade over ten by the row's rubric; thinking isn't shown, and empty replies aren't asked about."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", verdict("Good. \\boxed{7}"))
        rubric = Rubric(Judge(server.base_url, "judge", effort="low"))
        row = Problem("2", "Say hello.", reward="rubric", rubric="10: says hello.")
        replies = [reply("<think>secret</think>Hello."), reply(""), reply("Hello", finished=False)]
        assert await asyncio.to_thread(rubric, row, replies) == [0.7, 0.0, 0.0]
        (body,) = server.asked("/v1/chat/completions")
    assert (body["model"], body["reasoning_effort"]) == ("judge", "low")
    prompt = body["messages"][0]["content"]
    assert "10: says hello." in prompt
    assert "Hello." in prompt
    assert "secret" not in prompt


FAILURES = {
    "500": Json({"error": {"message": "no"}}, status=500),
    "no JSON": Json(b"no JSON"),
    "no choice": Json({"choices": []}),
    "no text": Json({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    "no grade": verdict("I can't say."),
    "off the scale": verdict("\\boxed{70}"),
    "cut off": verdict("\\boxed{7", finish="length"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_failed_judgement_is_none(failure: Json) -> None:
    """Whatever goes wrong, the reply is left out, and the others keep their grades."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", failure, verdict("\\boxed{10}"))
        judge = Judge(server.base_url, "judge", concurrency=1)
        grades = await asyncio.to_thread(Rubric(judge), CHAT, [reply("Hello."), reply("Hi.")])
    assert grades == [None, 1.0]


Case = tuple[str | None, float | str]
"""A reply, None where it was cut off, and what becomes of its judgement: a grade or a failure."""

cases = st.tuples(
    st.sampled_from([None, "", " \n", "Hello.", "Good day."]),
    st.integers(0, 20).map(lambda halves: halves / 2) | st.sampled_from(sorted(FAILURES)),
)


async def judged(given: Sequence[Case]) -> tuple[list[float | None], int]:
    """What the replies are worth, and how many were asked about."""
    replies = [reply("Hello." if text is None else text, finished=text is not None) for text, _ in given]
    told = [each for text, each in given if text and text.strip()]
    async with stub_engine() as server:
        server.answers(
            "/v1/chat/completions",
            *(FAILURES[each] if isinstance(each, str) else verdict(f"\\boxed{{{each:g}}}") for each in told),
        )
        rubric = Rubric(Judge(server.base_url, "judge", concurrency=1))
        worth = await asyncio.to_thread(rubric, CHAT, replies)
        return list(worth), len(server.asked("/v1/chat/completions"))


def worth_of(case: Case) -> float | None:
    """A tenth of the grade; None where the judgement fails, 0.0 where there is nothing to be judged."""
    text, told = case
    if not (text and text.strip()):
        return 0.0
    return None if isinstance(told, str) else pytest.approx(told / 10)


@settings(max_examples=40)
@given(st.lists(cases, max_size=6))
def test_a_grade_is_worth_a_tenth_of_itself(given: list[Case]) -> None:
    """Of each reply by itself, in whatever order and beside whatever failures it stands."""
    worth, asked = asyncio.run(judged(given))
    assert worth == [worth_of(case) for case in given]
    assert asked == sum(bool(text and text.strip()) for text, _ in given)


async def test_it_can_be_asked_where_a_loop_runs() -> None:
    """Called from a running event loop it blocks that, but works."""
    rubric = Rubric(Judge("http://127.0.0.1:9/v1", "judge", seconds=5))
    assert rubric(CHAT, [reply("Hello.")]) == [None]


class Liking:
    """A preference model that likes an answer by the number in it."""

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """See `PreferenceModel`."""
        return [float(answer) for answer in answers]


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=6), st.integers(-5, 5))
def test_a_preference_is_bounded_and_keeps_the_order(scores: list[int], centre: int) -> None:
    """Higher scores are worth more, but never 1 and more; the centre is worth a half."""
    worth = Preference(Liking(), centre)(CHAT, [reply(str(score)) for score in scores])
    for score, value in zip(scores, worth, strict=True):
        assert value == pytest.approx(1 / (1 + math.exp(centre - score)))
    assert [s for _, s in sorted(zip(worth, scores, strict=True))] == sorted(scores)


def test_a_preference_for_nothing() -> None:
    """Empty and cut-off replies aren't asked about; no number is no verdict; huge scores are bounded."""
    replies = [reply("1e9"), reply(""), reply("3", finished=False), reply("nan"), reply("-1e9")]
    assert Preference(Liking())(CHAT, replies) == [1.0, 0.0, 0.0, None, 0.0]


@pytest.mark.parametrize(
    ("name", "told"), [("rubric", "needs a judge"), ("preference", "needs a preference model")]
)
def test_what_is_missing_is_told_before_the_run(name: str, told: str) -> None:
    """A reward that can't be had is an error when the plan is made."""
    with pytest.raises(RewardError, match=told):
        reward_plan(RewardContext(), {name}, {})


def test_every_reward_can_be_had() -> None:
    """With all that they need, all rewards are made by their names; code is judged in a sandbox only."""
    setting = RewardContext(judge=Judge("http://127.0.0.1:9/v1", "judge"), preference=Liking())
    plan = reward_plan(setting, set(REWARDS) - {"tests"}, {"format": 0.1})
    assert set(plan.mains) == {"checks", "correct", "majority", "preference", "rubric"}
