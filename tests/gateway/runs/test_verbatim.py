"""A request that asks for nothing: it goes out as it came, and the reply comes back as the engine's own."""

from typing import Any

import pytest

from gateway.runs.events import Aside, Delta
from gateway.runs.run import Runner
from tests.fakes import ScriptedUpstream, Text, call, request_for, run_to_end, says, thinks

HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "3 + 4?"},
    {"role": "assistant", "content": "<think>hm</think>7", "reasoning": "R", "thinking": "T"},
    {"role": "user", "content": "and 4 + 4?"},
]
SEVEN = says("The answer ", "is 7.", stop_reason=None)
USAGE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"max_tokens": 5, "max_completion_tokens": 9, "stop": ["x"], "temperature": 0, "vendor": {"a": [1]}},
        {"chat_template_kwargs": {"preserve_thinking": True, "enable_thinking": False}, "tools": []},
        {"scaling": {}},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_goes_out_as_it_came(fields: dict[str, Any], stream: bool) -> None:
    """With all its fields and its history, and nothing is added by the gateway."""
    upstream = ScriptedUpstream(SEVEN)
    request = request_for(messages=HISTORY, stream=stream, **fields)
    await run_to_end(upstream, request)
    [sent] = upstream.plans
    assert sent.verbatim
    assert not sent.ids
    expected = {key: value for key, value in fields.items() if key != "scaling"}
    assert sent.body == {"model": "tiny", "messages": HISTORY, **expected}


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": "low"},
        {"headers": {"X-Samples": "1"}},
        {"headers": {"X-Reasoning-Budget": "max"}},
        {"scaling": {"trace": True}},
        {"scaling": {"samples": 2}},
    ],
)
async def test_whoever_asks_for_something_is_not_verbatim(asked: dict[str, Any]) -> None:
    """Then the gateway works on the request, and earlier thinking goes by the family's rules."""
    request = request_for(messages=HISTORY, **asked)
    assert not request.verbatim
    assert "R" not in str(request.body["messages"])


@pytest.mark.parametrize("count", [1, 3])
async def test_a_whole_reply_is_the_engines_own(count: int) -> None:
    """The result holds its body, its usage to the token and its headers; every choice is a sample."""
    upstream = ScriptedUpstream(SEVEN, thinks(3), prompt_tokens=11)
    upstream.headers = {"x-ratelimit-remaining-requests": "9"}
    _, result = await run_to_end(upstream, request_for(n=count))
    assert result.reply is not None
    assert [choice["finish_reason"] for choice in result.reply["choices"]] == ["stop"] * count
    assert result.usage == result.reply["usage"]
    assert result.headers == upstream.headers
    assert [sample.index for sample in result.chosen] == list(range(count))
    assert (result.generated, result.upstream_prompt) == (result.usage["completion_tokens"], 11)
    assert result.chosen[-1].content == "The answer is 7."
    assert result.notes == ()


async def test_a_whole_reply_leaves_out_the_choices_that_failed() -> None:
    """Their partial text reaches nobody."""
    upstream = ScriptedUpstream(SEVEN, says("POISON", finish="abort"), SEVEN)
    _, result = await run_to_end(upstream, request_for(n=3))
    assert result.reply is not None
    assert [choice["index"] for choice in result.reply["choices"]] == [0, 2]
    assert "POISON" not in str(result)


async def test_every_event_of_a_stream_comes_through() -> None:
    """Also those without text: the role, a vendor's field, the end, and the usage as an aside."""
    script = says(
        "<think>", "hm", "</think>", Text(delta={"vendor": 1}), "Seven.", call(0, "{}", "c"), stop_reason=None
    )
    upstream = ScriptedUpstream(script, counts=False)
    events, result = await run_to_end(upstream, request_for(stream=True, **USAGE))
    deltas = [event for event in events if isinstance(event, Delta)]
    assert len(deltas) == len(script.steps) + 2
    assert all(delta.choice is delta.event["choices"][0] for delta in deltas)
    assert deltas[0].choice["delta"] == {"role": "assistant", "content": ""}
    assert deltas[4].choice["delta"] == {"vendor": 1}
    assert deltas[-1].choice["finish_reason"] == "stop"
    assert ("".join(d.reasoning for d in deltas), "".join(d.content for d in deltas)) == ("hm", "Seven.")
    [aside] = [event for event in events if isinstance(event, Aside)]
    assert aside.event["choices"] == []
    assert result.usage == aside.event["usage"]


async def test_the_choices_of_a_stream_come_through_by_index() -> None:
    """One upstream request, whose usage is the reply's."""
    events, result = await run_to_end(ScriptedUpstream(SEVEN, SEVEN), request_for(n=2, stream=True, **USAGE))
    ends = [e for e in events if isinstance(e, Delta) and e.choice["finish_reason"] == "stop"]
    assert {end.index for end in ends} == {0, 1}
    assert result.usage["completion_tokens"] == result.generated == 2 * SEVEN.tokens


async def test_an_answer_shown_as_thinking_follows_the_end() -> None:
    """It has no choice of its own: the gateway has made it from what was shown before."""
    events, _ = await run_to_end(ScriptedUpstream(SEVEN), request_for(stream=True, family="deepseek-r1"))
    deltas = [event for event in events if isinstance(event, Delta)]
    assert deltas[-2].choice["finish_reason"] == "stop"
    assert (deltas[-1].content, deltas[-1].choice) == ("The answer is 7.", {})


async def test_a_request_without_a_stream_is_one_plain_request() -> None:
    """Nothing is streamed upstream where nothing is to be watched."""

    class Whole(ScriptedUpstream):
        """Has no streams."""

        def stream(self, plan: Any) -> Any:
            """Refuse."""
            raise AssertionError("nothing asked for a stream")

    for count in (1, 2):
        result = await Runner(Whole(SEVEN)).complete(request_for(n=count))
        assert len(result.chosen) == count
