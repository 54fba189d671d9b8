"""Replies that are no worked-out answer: tool calls, JSON, talk."""

from typing import Any

import pytest

from scorers.grouping import Grouper
from scorers.sample_answers import answer_json, answer_tools, is_free_form, read_answer
from scorers.types import Answer, Sample
from scorers.votes import majority


def call(name: str, arguments: Any) -> dict[str, Any]:
    """A tool call as OpenAI writes it."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], index: int = 0) -> Sample:
    """A sample that calls tools."""
    return Sample(index, "", finish_reason="tool_calls", tool_calls=calls)


def key(sample: Sample) -> Any:
    """The voting key of a sample's tool calls."""
    answer = answer_tools(sample)
    return answer and answer.key


def test_arguments_are_compared_by_value() -> None:
    """Spaces, the order of names and the way of writing a number make no difference."""
    one = calling(call("f", '{"b": 1.0, "a": [1, 2]}'))
    assert key(one) == key(calling(call("f", '{"a":[1,2],"b":1}')))
    assert key(one) != key(calling(call("f", '{"a":[2,1],"b":1}')))
    assert key(one) != key(calling(call("g", '{"a":[1,2],"b":1}')))


def test_parallel_calls_have_no_order() -> None:
    """The same calls in another order are the same; calling twice is not calling once."""
    f, g = call("f", "{}"), call("g", '{"x": 1}')
    assert key(calling(f, g)) == key(calling(g, f))
    assert key(calling(f, f)) != key(calling(f))


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '{"a": NaN}', "[" * 100_000, 7])
def test_a_call_that_cannot_be_carried_out_has_no_vote(arguments: Any) -> None:
    """Arguments that are no JSON object must not win."""
    assert answer_tools(calling(call("f", arguments))) is None
    assert answer_tools(calling(call("f", "{}"), call("f", arguments))) is None


@pytest.mark.parametrize(
    "broken", [{}, {"function": None}, {"function": {"name": ""}}, {"function": {"name": 1}}]
)
def test_a_nameless_call_has_no_vote(broken: dict[str, Any]) -> None:
    """A call without a function's name asks for nothing."""
    assert answer_tools(calling(broken)) is None


def test_no_arguments_are_an_empty_object() -> None:
    """A call without arguments is the call with an empty object, given as text or as a value."""
    assert key(calling(call("f", ""))) == key(calling(call("f", "{}"))) == key(calling(call("f", {})))


def test_the_most_frequent_valid_call_wins() -> None:
    """Two broken calls don't outvote, and of the valid ones the frequent one is returned."""
    samples = [
        calling(call("f", '{"x": '), index=0),
        calling(call("f", '{"x": '), index=1),
        calling(call("f", '{"x": 2}'), index=2),
        calling(call("f", '{"x": 1}'), index=3),
        calling(call("f", '{"x":1.0}'), index=4),
    ]
    grouper = Grouper()
    for sample in samples:
        grouper.add(sample, read_answer(sample))
    assert majority(grouper.groups, samples).winner == 3


def test_json_is_compared_by_value() -> None:
    """JSON replies are equal as values, in a Markdown fence or not; broken ones have no vote."""
    plain, fenced = answer_json('{"a": 1, "b": null}'), answer_json('```json\n{"b":null,"a":1.0}\n```')
    assert plain is not None
    assert fenced is not None
    assert plain.key == fenced.key
    assert answer_json('{"a": 1') is None


def test_json_and_tool_calls_are_read_as_such() -> None:
    """Tool calls come before text; text is JSON only where that was asked for."""
    assert read_answer(Sample(0, "The answer is 5", tool_calls=(call("f", "{}"),))) == Answer(
        "f({})", ("tools", "f({})")
    )
    as_json = read_answer(Sample(0, "[5]"), as_json=True)
    assert as_json == Answer("[5]", ("json", "[5]"))
    text = read_answer(Sample(0, "It is \\boxed{5}."))
    assert text is not None
    assert text.raw == "5"


def test_talk_is_told_from_answers() -> None:
    """Most samples without a short answer are talk; tool calls and truncated samples say nothing."""
    samples = [Sample(i, "") for i in range(3)]
    short, long = Answer("7", "7"), Answer("word " * 80, "long")
    assert is_free_form(samples, [None, None, short])
    assert is_free_form(samples, [long, long, short])
    assert not is_free_form(samples, [None, short, short])
    truncated = [Sample(0, "", finish_reason="length"), Sample(1, "", finish_reason="length"), samples[2]]
    assert not is_free_form(truncated, [None, None, short])
    assert not is_free_form([calling(call("f", "{}"))], [None])
