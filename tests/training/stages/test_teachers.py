"""A teacher behind an OpenAI-compatible endpoint: here the gateway itself."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import MODEL, ScriptedUpstream, says, thinks
from tests.serving import serving_in_thread
from tests.training.teaching import Teacher
from training.config import SftTable
from training.stages.teachers import Replies, TeacherError, ask_endpoint
from training.types import Problem

ROWS = [Problem("1", "What is 3+4?", "7"), Problem("2", "What is 2+5?", "7")]


def table(url: str, **fields: object) -> SftTable:
    """Return the settings of a cold start taught by an endpoint."""
    return SftTable.model_validate({"max_steps": 1, "teacher": "endpoint", "endpoint": f"{url}/v1", **fields})


@pytest.fixture
def thinker() -> Iterator[tuple[str, ScriptedUpstream]]:
    """Return a gateway's address, and the thinking model behind it."""
    upstream = ScriptedUpstream(thinks(5))
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        yield url, upstream


def test_thinking_and_answer_are_separate(thinker: tuple[str, ScriptedUpstream]) -> None:
    """Every problem has its replies, each with the thinking that the endpoint separated."""
    url, upstream = thinker
    replies = ask_endpoint(table(url, endpoint_model=MODEL), ROWS, ["high", None])
    assert len(replies) == len(ROWS)
    for [(thinking, answer)] in replies:
        assert answer.strip() == "The answer is 7."
        assert thinking
        assert "<think>" not in thinking + answer
    asked = [body["messages"][-1]["content"] for body in upstream.bodies]
    assert sorted(asked) == sorted(problem.question for problem in ROWS)


def test_truncated_replies_are_left_out() -> None:
    """Only replies that ended by themselves are fit to imitate."""
    upstream = ScriptedUpstream(says("The answer is", finish="length"))
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        assert ask_endpoint(table(url, endpoint_model=MODEL), ROWS, [None, None]) == [[], []]


@pytest.mark.parametrize(("failing", "refused"), [(1, False), (2, True)])
def test_a_teacher_that_often_fails_is_an_error(failing: int, refused: bool) -> None:
    """At more than a twentieth of the questions; replies are saved, so that only the rest is asked again."""
    problems = [Problem(str(number), f"What is {number}+1?", str(number + 1)) for number in range(20)]
    unwilling = {problems[number].question for number in range(failing)}
    saved: dict[str, Replies] = {}
    with Teacher(unwilling=unwilling) as teacher:
        asked = SftTable.model_validate({"max_steps": 1, "teacher": "endpoint", "endpoint": teacher.url})
        expected = pytest.raises(TeacherError, match="2 of 20 questions") if refused else nullcontext()
        with expected:
            replies = ask_endpoint(asked, problems, [None] * 20, save=saved.__setitem__)
            assert [len(reply) for reply in replies] == [0, *[1] * 19]
        assert saved.keys() == {problem.id for problem in problems[failing:]}
        teacher.unwilling.clear()
        teacher.asked.clear()
        assert all(ask_endpoint(asked, problems, [None] * 20, earlier=saved))
    assert teacher.asked.keys() == unwilling


def test_a_teacher_that_never_answers_is_an_error() -> None:
    """The message has the first failure."""
    with pytest.raises(TeacherError, match=r"did not answer 2 of 2 questions .*127\.0\.0\.1:9"):
        ask_endpoint(table("http://127.0.0.1:9"), ROWS, [None, None])
