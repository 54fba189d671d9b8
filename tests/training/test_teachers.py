"""A teacher behind an OpenAI-compatible endpoint: here the gateway itself."""

from collections.abc import Iterator

import pytest

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import MODEL, ScriptedBackend, says, thinks
from tests.serving import serving_in_thread
from training.config import SftTable
from training.teachers import TeacherError, ask_endpoint
from training.types import Row

ROWS = [Row("1", "What is 3+4?", "7"), Row("2", "What is 2+5?", "7")]


def table(url: str, **fields: object) -> SftTable:
    """A cold start taught by an endpoint."""
    return SftTable.model_validate({"steps": 1, "teacher": "endpoint", "endpoint": f"{url}/v1", **fields})


@pytest.fixture
def thinker() -> Iterator[tuple[str, ScriptedBackend]]:
    """A gateway's address, and the thinking model behind it."""
    backend = ScriptedBackend(thinks(5))
    with serving_in_thread(create_app(Settings(), backend)) as url:
        yield url, backend


def test_thinking_and_answer_come_apart(thinker: tuple[str, ScriptedBackend]) -> None:
    """Every row has its replies, each with the thinking that the endpoint told apart."""
    url, backend = thinker
    replies = ask_endpoint(table(url, endpoint_model=MODEL), ROWS, ["high", None])
    assert len(replies) == len(ROWS)
    for [(thinking, answer)] in replies:
        assert answer.strip() == "The answer is 7."
        assert thinking
        assert "<think>" not in thinking + answer
    asked = [body["messages"][-1]["content"] for body in backend.bodies]
    assert sorted(asked) == sorted(row.question for row in ROWS)


def test_replies_that_were_cut_off_are_left_out() -> None:
    """Only what ended by itself is fit to imitate."""
    backend = ScriptedBackend(says("The answer is", finish="length"))
    with serving_in_thread(create_app(Settings(), backend)) as url:
        assert ask_endpoint(table(url, endpoint_model=MODEL), ROWS, [None, None]) == [[], []]


def test_a_teacher_that_never_answers_is_an_error() -> None:
    """Where every question failed, it says what the first failure was."""
    with pytest.raises(TeacherError, match=r"answered no question: .*127\.0\.0\.1:9"):
        ask_endpoint(table("http://127.0.0.1:9"), ROWS, [None, None])
