"""Samples whose answers are tool calls, JSON or free text."""

from typing import Any

import pytest

from scorers.grouping import Grouper
from scorers.sample_answers import is_free_form, json_answer, read_answer, tool_call_answer
from scorers.types import Answer, Sample
from scorers.votes import majority


def call(name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call as OpenAI writes it."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], index: int = 0) -> Sample:
    """Return a sample that calls tools."""
    return Sample(index, "", finish_reason="tool_calls", tool_calls=calls)


def key(sample: Sample) -> Any:
    """Return the voting key of a sample's tool calls."""
    answer = tool_call_answer(sample)
    return answer and answer.key


def test_arguments_are_compared_by_value() -> None:
    """Spaces, the order of names and the spelling of a number make no difference."""
    one = calling(call("f", '{"b": 1.0, "a": [1, 2]}'))
    assert key(one) == key(calling(call("f", '{"a":[1,2],"b":1}')))
    assert key(one) != key(calling(call("f", '{"a":[2,1],"b":1}')))
    assert key(one) != key(calling(call("g", '{"a":[1,2],"b":1}')))


def test_parallel_calls_have_no_order() -> None:
    """The same calls in another order are equal; calling twice differs from calling once."""
    f, g = call("f", "{}"), call("g", '{"x": 1}')
    assert key(calling(f, g)) == key(calling(g, f))
    assert key(calling(f, f)) != key(calling(f))


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '{"a": NaN}', "[" * 100_000, 7])
def test_a_call_that_cannot_be_carried_out_has_no_vote(arguments: Any) -> None:
    """A call whose arguments are no JSON object has no vote."""
    assert tool_call_answer(calling(call("f", arguments))) is None
    assert tool_call_answer(calling(call("f", "{}"), call("f", arguments))) is None


@pytest.mark.parametrize(
    "broken", [{}, {"function": None}, {"function": {"name": ""}}, {"function": {"name": 1}}]
)
def test_a_nameless_call_has_no_vote(broken: dict[str, Any]) -> None:
    """A call without a function's name has no vote."""
    assert tool_call_answer(calling(broken)) is None


def test_no_arguments_are_an_empty_object() -> None:
    """A call without arguments equals the call with an empty object, as text or as a value."""
    assert key(calling(call("f", ""))) == key(calling(call("f", "{}"))) == key(calling(call("f", {})))


def test_the_most_frequent_valid_call_wins() -> None:
    """Two broken calls do not outvote a valid one; of the valid ones the most frequent wins."""
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
    """JSON replies are equal as values, in a Markdown fence or not; invalid ones have no vote."""
    plain, fenced = json_answer('{"a": 1, "b": null}'), json_answer('```json\n{"b":null,"a":1.0}\n```')
    assert plain is not None
    assert fenced is not None
    assert plain.key == fenced.key
    assert json_answer('{"a": 1') is None


def test_tool_calls_come_first_and_json_by_request() -> None:
    """Tool calls come before text; text is JSON only if requested."""
    assert read_answer(Sample(0, "The answer is 5", tool_calls=(call("f", "{}"),))) == Answer(
        "f({})", ("tools", "f({})")
    )
    as_json = read_answer(Sample(0, "[5]"), as_json=True)
    assert as_json == Answer("[5]", ("json", "[5]"))
    text = read_answer(Sample(0, "It is \\boxed{5}."))
    assert text is not None
    assert text.raw == "5"


def test_free_text_is_told_from_answers() -> None:
    """Samples without a short answer are free text; tool calls and truncated samples do not count."""
    samples = [Sample(i, "") for i in range(3)]
    short, long = Answer("7", "7"), Answer("word " * 80, "long")
    assert is_free_form(samples, [None, None, short])
    assert is_free_form(samples, [long, long, short])
    assert not is_free_form(samples, [None, short, short])
    truncated = [Sample(0, "", finish_reason="length"), Sample(1, "", finish_reason="length"), samples[2]]
    assert not is_free_form(truncated, [None, None, short])
    assert not is_free_form([calling(call("f", "{}"))], [None])
