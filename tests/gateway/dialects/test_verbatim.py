"""A request that asks for nothing gets the engine's own reply; here is all that is added, moved or hidden."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.dialects.chat import ChatExchange
from gateway.errors import UpstreamError
from gateway.runs.events import Aside, Delta, RunResult, SampleCounts
from gateway.runs.request import ReplyOptions, RunRequest
from policies.types import SamplingRequest
from scorers.types import Sample
from tests.fakes import request_for

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
EXCHANGE = ChatExchange(orjson.dumps(BODY))
HEAD: dict[str, Any] = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "vendor": {"a": 1}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "vendor_tokens": 1}
DETAILS = [{"type": "reasoning.text", "text": "Hm.", "index": 0}]


def request(**options: Any) -> RunRequest:
    """Return a verbatim request."""
    return replace(request_for(BODY), verbatim=True, reply=ReplyOptions(**options))


def result(*samples: Sample, reply: Mapping[str, Any] | None = None) -> RunResult:
    """Return the result of a run with these samples."""
    return RunResult(samples, samples, SampleCounts(len(samples)), SamplingRequest(), reply=reply)


def whole(message: Mapping[str, Any], sample: Sample, **options: Any) -> dict[str, Any]:
    """Return the unstreamed reply to an engine's message, without `scaling`."""
    reply = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    body = EXCHANGE.reply(request(**options), result(sample, reply=reply), "tiny")
    assert ("scaling" in body) is not options.get("plain", False)
    return {key: value for key, value in body.items() if key != "scaling"}


def message_of(message: Mapping[str, Any], sample: Sample, **options: Any) -> Any:
    """Return the message of that reply; the other fields are the engine's."""
    body = whole(message, sample, **options)
    [choice] = body.pop("choices")
    assert body == {**HEAD, "usage": USAGE}
    assert choice.pop("index") == 0
    assert choice.pop("finish_reason") == "stop"
    assert list(choice) == ["message"]
    return choice["message"]


def chunk(delta: Mapping[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """Return an engine's chunk with one choice."""
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


def fed(event: Mapping[str, Any], reasoning: str | None = None, content: str | None = None) -> list[Delta]:
    """Return the deltas of an event; the gateway reads its text as the engine does, or as given."""
    return [
        Delta(
            choice["index"],
            choice["delta"].get("reasoning") or "" if reasoning is None else reasoning,
            choice["delta"].get("content") or "" if content is None else content,
            event,
            choice,
        )
        for choice in event["choices"]
    ]


def streamed(
    steps: Sequence[Delta | Aside | list[Delta]], *samples: Sample, **options: Any
) -> tuple[list[dict[str, Any]], Any]:
    """Return the events of a streamed reply, and the `scaling` that stood in one of them."""
    writer = EXCHANGE.writer(request(stream=True, **options), "tiny")
    blocks = []
    for step in steps:
        for event in step if isinstance(step, list) else [step]:
            blocks.append(writer.aside(event) if isinstance(event, Aside) else writer.delta(event))
    text = b"".join([*blocks, writer.finish(result(*(samples or (Sample(0, ""),))))])
    assert text.endswith(b"data: [DONE]\n\n")
    events = [orjson.loads(line[6:]) for line in text.split(b"\n\n")[:-2]]
    reports = [event.pop("scaling") for event in events if "scaling" in event]
    assert len(reports) == (not options.get("plain"))
    return events, reports


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Hi."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "index": 3, "vendor": 1}]},
        {"role": "assistant", "content": "", "refusal": None, "annotations": [], "vendor": {"b": [1.5]}},
        {"content": "Hi.", "reasoning": None, "reasoning_content": ""},
    ],
)
def test_a_message_is_the_engines_own(message: dict[str, Any]) -> None:
    """Nothing is added to it, not even a null, and nothing is left out."""
    assert message_of(message, Sample(0, message["content"] or "")) == message


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thinking_comes_under_both_names_or_under_the_engines(name: str) -> None:
    """Clients read one or the other; with `plain_replies` the engine's own name is left alone."""
    message = {"role": "assistant", name: "Hm.", "reasoning_details": DETAILS, "content": "Hi."}
    sample = Sample(0, "Hi.", "Hm.")
    both = {**message, "reasoning": "Hm.", "reasoning_content": "Hm."}
    assert message_of(message, sample) == both
    assert message_of(message, sample, plain=True) == message
    delta = {name: "Hm."}
    steps = [fed(chunk(delta), "Hm.", ""), fed(chunk({}, "stop"))]
    assert streamed(steps)[0][0] == chunk({"reasoning": "Hm.", "reasoning_content": "Hm."})
    assert streamed(steps, plain=True)[0][0] == chunk(delta)


def test_a_closed_block_moves_out_of_the_text() -> None:
    """The text between the tags is thinking, whole and streamed."""
    message = {"role": "assistant", "content": "<think>Hm.</think>Hi."}
    both = {"reasoning": "Hm.", "reasoning_content": "Hm."}
    assert message_of(message, Sample(0, "Hi.", "Hm.")) == {**message, "content": "Hi.", **both}
    steps = [
        fed(chunk({"role": "assistant", "content": ""})),
        fed(chunk({"content": "<think>Hm."}, logprobs={"content": []}), "Hm.", ""),
        fed(chunk({"content": "</think>Hi."}), "", "Hi."),
        fed(chunk({}, "stop")),
    ]
    assert streamed(steps)[0] == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "", **both}, logprobs={"content": []}),
        chunk({"content": "Hi."}),
        chunk({}, "stop"),
    ]


def test_an_answer_filed_as_reasoning_is_the_content() -> None:
    """The names that held it go."""
    message = {"role": "assistant", "content": None, "reasoning": "Hi.", "reasoning_content": "Hi."}
    assert message_of(message, Sample(0, "Hi.")) == {"role": "assistant", "content": "Hi."}
    steps = [fed(chunk({"reasoning": "Hi."}), "", "Hi."), fed(chunk({}, "stop"))]
    assert streamed(steps)[0] == [chunk({"content": "Hi."}), chunk({}, "stop")]


def test_excluded_thinking_is_nowhere_in_the_reply() -> None:
    """Neither in the details, nor in a vendor's field, nor in the log probabilities of its tokens."""
    tokens = [{"token": token, "logprob": -1.0} for token in ("Hm", ".", "H", "i.")]
    message = {
        "role": "assistant",
        "content": "Hi.",
        "reasoning": "Hm.",
        "reasoning_details": DETAILS,
        "thinking_blocks": [{"thinking": "Hm."}],
    }
    choice = {"index": 0, "message": message, "logprobs": {"content": tokens}, "token_ids": [1, 2]}
    reply = {**HEAD, "choices": [choice]}
    sample = Sample(0, "Hi.", "Hm.")
    body = EXCHANGE.reply(request(exclude_reasoning=True), result(sample, reply=reply), "tiny")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi."},
            "logprobs": {"content": tokens[2:]},
        }
    ]
    thought = chunk({"reasoning": "Hm.", "reasoning_details": DETAILS}, logprobs={"content": tokens[:2]})
    tagged = chunk({"content": "</think>"}, logprobs={"content": tokens[:1]})
    answer = chunk({"content": "Hi."}, logprobs={"content": tokens[2:]})
    steps = [fed(thought), fed(tagged, "", ""), fed(answer), fed(chunk({}, "stop"))]
    events, _ = streamed(steps, sample, exclude_reasoning=True)
    assert events == [chunk({"content": ""}), answer, chunk({}, "stop")]


def test_chunks_come_as_they_are_and_in_their_order() -> None:
    """Role chunks, empty ones, events without a choice and a vendor's fields; usage only where it came."""
    events = [
        {**HEAD, "choices": [], "prompt_filter_results": []},
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hi"}, logprobs=None, usage=None),
        chunk({}),
        chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}),
        chunk({"content": ""}, "stop", stop_reason=5),
        {**HEAD, "choices": [], "usage": USAGE},
        {**HEAD, "choices": [], "vendor_cost": 1},
    ]
    steps = [fed(event) if event["choices"] else Aside(event) for event in events]
    written, [report] = streamed(steps)
    assert written == events
    assert report["samples"]["asked"] == 1
    assert streamed(steps, plain=True)[0] == events


def test_the_report_stands_in_the_last_chunk_that_ends_a_choice() -> None:
    """Before usage, where it has always been."""
    steps = [fed(chunk({"content": "Hi"})), fed(chunk({}, "stop")), Aside({**HEAD, "usage": USAGE})]
    writer = EXCHANGE.writer(request(stream=True), "tiny")
    assert [writer.delta(delta) for step in steps[:2] for delta in step][1] == b""
    assert writer.aside(steps[2]) == b""
    events = [orjson.loads(line[6:]) for line in writer.finish(result(Sample(0, "Hi"))).split(b"\n\n")[:-2]]
    assert ["scaling" in event for event in events] == [True, False]


def test_an_event_with_several_choices_stays_one_event() -> None:
    """So that its usage counts once."""
    both = {
        **HEAD,
        "choices": [chunk({"content": text}, index=i)["choices"][0] for i, text in enumerate("ab")],
    }
    ends = {**HEAD, "choices": [chunk({}, "stop", index=i)["choices"][0] for i in range(2)], "usage": USAGE}
    events, _ = streamed([fed(both), fed(ends)], Sample(0, "a"), Sample(1, "b"))
    assert events == [both, ends]


def test_choices_that_end_apart_come_each_with_its_end() -> None:
    """A choice that goes on doesn't wait for the one that has ended."""
    writer = EXCHANGE.writer(request(stream=True, choices=2), "tiny")
    steps = [chunk({"content": "a"}), chunk({}, "stop"), chunk({"content": "b"}, index=1)]
    blocks = [writer.delta(delta) for step in steps for delta in fed(step)]
    assert [bool(block) for block in blocks] == [True, False, True]
    writer.delta(fed(chunk({}, "length", index=1))[0])
    end = writer.finish(result(Sample(0, "a"), Sample(1, "b")))
    events = [orjson.loads(line[6:]) for line in end.split(b"\n\n")[:-2]]
    assert [event["choices"][0]["finish_reason"] for event in events] == ["stop", "length"]
    assert ["scaling" in event for event in events] == [False, True]


@pytest.mark.parametrize("last", ["", "a<"])
def test_text_that_was_held_back_comes_before_the_end(last: str) -> None:
    """Also where the engine's last text and the end are one chunk: the order of the text stays."""
    late = Delta(0, "", "<b", {}, {})
    steps: list[Any] = [fed(chunk({"content": "Hi "})), fed(chunk({"content": last}, "stop"))]
    events, _ = streamed([*steps, late])
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == f"Hi {last}<b"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert all(event["vendor"] == {"a": 1} for event in events)


def test_nothing_is_written_before_the_first_text() -> None:
    """Until then a failure can have its own status."""
    writer = EXCHANGE.writer(request(stream=True), "tiny")
    for event in (chunk({"role": "assistant", "content": ""}), chunk({}), chunk({"content": None})):
        assert writer.delta(fed(event)[0]) == b""
    assert writer.aside(Aside({**HEAD, "choices": []})) == b""
    assert writer.delta(fed(chunk({"content": "a"}))[0]).count(b"data: ") == 5


def test_a_failure_after_text_is_an_event_without_done() -> None:
    """The client knows that the reply is not complete."""
    writer = EXCHANGE.writer(request(stream=True), "tiny")
    error = orjson.loads(writer.error(UpstreamError(502, "gone", {"code": "abort"}))[6:])["error"]
    assert (error["message"], error["code"]) == ("gone", "abort")


def test_a_choice_that_failed_is_not_in_the_reply() -> None:
    """The others come back."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate("abc")
    ]
    reply = {**HEAD, "choices": choices}
    body = EXCHANGE.reply(request(choices=3), result(Sample(0, "a"), Sample(2, "c"), reply=reply), "tiny")
    assert body["choices"] == [choices[0], choices[2]]
