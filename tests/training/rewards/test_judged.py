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


def majority(*values: str) -> list[float | None]:
    """Return the majority rewards of replies with these answers."""
    return list(Majority()(SUM, [reply(f"The answer is {value}." if value else "") for value in values]))


def test_the_majority_counts_as_right() -> None:
    """Equal answers are one group however they are written; other answers, and none, get nothing."""
    assert majority("1/2", "0.5", "\\frac12", "2", "") == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "values", [("1", "2"), ("1", "1", "2", "2"), ("1", "1", "2", "3", "4"), ("1",), ("", ""), ()]
)
def test_without_a_majority_nobody_knows(values: tuple[str, ...]) -> None:
    """A tie, a group that is too small, a single reply and no answers give no reward at all."""
    assert majority(*values) == [None] * len(values)


def test_a_truncated_reply_has_no_vote() -> None:
    """It can't join the majority, nor gain by it."""
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
    """The same replies in another order get the same rewards."""
    first, second = (dict(zip(order, majority(*order), strict=True)) for order in orders)
    assert first == second


def verdict(text: str, finish: str = "stop") -> Json:
    """Return a chat completion with this text."""
    return Json({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


async def test_a_judge_grades_each_reply() -> None:
    """It grades by the problem's rubric, over ten. It sees no thinking and no empty reply."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", verdict("Good. \\boxed{7}"))
        rubric = Rubric(Judge(server.base_url, "judge", budget="low"))
        problem = Problem("2", "Say hello.", reward="rubric", rubric="10: says hello.")
        replies = [reply("<think>secret</think>Hello."), reply(""), reply("Hello", finished=False)]
        assert await asyncio.to_thread(rubric, problem, replies) == [0.7, 0.0, 0.0]
        (body,) = server.bodies("/v1/chat/completions")
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
    """Whatever fails, the reply is left out, and the others keep their grades."""
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", failure, verdict("\\boxed{10}"))
        judge = Judge(server.base_url, "judge", concurrency=1)
        grades = await asyncio.to_thread(Rubric(judge), CHAT, [reply("Hello."), reply("Hi.")])
    assert grades == [None, 1.0]


Case = tuple[str | None, float | str]
"""A reply, None where it is truncated, and its judgement: a grade or the name of a failure."""

cases = st.tuples(
    st.sampled_from([None, "", " \n", "Hello.", "Good day."]),
    st.integers(0, 20).map(lambda halves: halves / 2) | st.sampled_from(sorted(FAILURES)),
)


async def judge(replies_and_grades: Sequence[Case]) -> tuple[list[float | None], int]:
    """Return the rewards of the replies, and the number of judgements that were asked for."""
    replies = [
        reply("Hello." if text is None else text, finished=text is not None) for text, _ in replies_and_grades
    ]
    judgements = [judgement for text, judgement in replies_and_grades if text and text.strip()]
    async with stub_engine() as server:
        server.answers(
            "/v1/chat/completions",
            *(
                FAILURES[judgement] if isinstance(judgement, str) else verdict(f"\\boxed{{{judgement:g}}}")
                for judgement in judgements
            ),
        )
        rubric = Rubric(Judge(server.base_url, "judge", concurrency=1))
        rewards = await asyncio.to_thread(rubric, CHAT, replies)
        return list(rewards), len(server.bodies("/v1/chat/completions"))


def expected_reward(case: Case) -> float | None:
    """Return a tenth of the grade; None where the judgement fails, 0.0 where there is nothing to judge."""
    text, judgement = case
    if not (text and text.strip()):
        return 0.0
    return None if isinstance(judgement, str) else pytest.approx(judgement / 10)


@settings(max_examples=40)
@given(st.lists(cases, max_size=6))
def test_a_reward_is_a_tenth_of_the_grade(replies_and_grades: list[Case]) -> None:
    """Each reply gets its own, in any order and beside any failures."""
    rewards, requests = asyncio.run(judge(replies_and_grades))
    assert rewards == [expected_reward(case) for case in replies_and_grades]
    assert requests == sum(bool(text and text.strip()) for text, _ in replies_and_grades)


async def test_the_rubric_may_be_called_where_a_loop_runs() -> None:
    """Called from a running event loop, it blocks the loop but works."""
    rubric = Rubric(Judge("http://127.0.0.1:9/v1", "judge", seconds=5))
    assert rubric(CHAT, [reply("Hello.")]) == [None]


class NumberLiker:
    """A preference model whose score is the number in the answer."""

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """See `PreferenceModel`."""
        return [float(answer) for answer in answers]


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=6), st.integers(-5, 5))
def test_a_preference_is_bounded_and_keeps_the_order(scores: list[int], centre: int) -> None:
    """Higher scores give higher rewards, always below 1; the centre gives a half."""
    rewards = Preference(NumberLiker(), centre)(CHAT, [reply(str(score)) for score in scores])
    for score, value in zip(scores, rewards, strict=True):
        assert value == pytest.approx(1 / (1 + math.exp(centre - score)))
    assert [s for _, s in sorted(zip(rewards, scores, strict=True))] == sorted(scores)


def test_a_preference_without_a_score() -> None:
    """Empty and truncated replies get 0.0, a NaN gives None, and huge scores stay within bounds."""
    replies = [reply("1e9"), reply(""), reply("3", finished=False), reply("nan"), reply("-1e9")]
    assert Preference(NumberLiker())(CHAT, replies) == [1.0, 0.0, 0.0, None, 0.0]


@pytest.mark.parametrize(
    ("name", "message"), [("rubric", "needs a judge"), ("preference", "needs a preference model")]
)
def test_a_missing_judge_or_model_is_an_error(name: str, message: str) -> None:
    """A reward that can't be made is an error when the plan is made."""
    with pytest.raises(RewardError, match=message):
        reward_plan(RewardContext(), {name}, {})


def test_every_reward_can_be_made() -> None:
    """A full context makes all rewards by their names; code needs a sandbox."""
    context = RewardContext(judge=Judge("http://127.0.0.1:9/v1", "judge"), preference=NumberLiker())
    plan = reward_plan(context, set(REWARDS) - {"tests"}, {"format": 0.1})
    assert set(plan.mains) == {"checks", "correct", "majority", "preference", "rubric"}
