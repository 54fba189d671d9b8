"""A reply is the same sequence of blocks, however its text is cut into deltas."""

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.blocks import Block, BlockStream, blocks_of
from gateway.errors import GatewayError
from gateway.runs.budget import RequestedSampling
from gateway.runs.events import Delta, RunResult, SampleCounts
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from policies.families import find_family
from policies.types import SamplingRequest
from scorers.types import Sample

DELTAS = st.lists(st.tuples(st.sampled_from(["thinking", "text"]), st.text()))


class _Recording:
    """A format that records its calls."""

    id = "reply"

    def __init__(self) -> None:
        self.events: list[tuple[str, int, str]] = []

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        self.events.append(("begin", -1, ""))
        return b""

    def open(self, block: Block) -> bytes:
        self.events.append((f"open {block.kind}", block.index, block.text))
        return b""

    def extend(self, block: Block, text: str) -> bytes:
        self.events.append(("grow", block.index, text))
        return b""

    def close(self, block: Block) -> bytes:
        self.events.append(("close", block.index, block.text))
        return b""

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        raise AssertionError("nothing votes here")

    def heartbeat(self) -> bytes:
        raise AssertionError("nothing waits here")

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        self.events.append(("end", -1, ""))
        return b""

    def fail(self, error: GatewayError) -> bytes:
        raise AssertionError("nothing fails here")


def request(**reply: Any) -> RunRequest:
    """Return a request for one sample, without a budget."""
    body = {"messages": [{"role": "user", "content": "hi"}]}
    return plan_request(
        body,
        RequestedSampling(),
        ReplyOptions(stream=True, **reply),
        ServedModel("tiny", find_family("tiny")),
    )


def calls(deltas: list[tuple[str, str]], run_request: RunRequest) -> list[tuple[str, int, str]]:
    """Return the calls that a format gets for a reply in these deltas."""
    recording = _Recording()
    stream = BlockStream(run_request, recording)
    for kind, text in deltas:
        reasoning, content = (text, "") if kind == "thinking" else ("", text)
        stream.delta(Delta(0, reasoning, content, {}, {}))
    sample = Sample(0, "".join(text for kind, text in deltas if kind == "text"))
    stream.finish(RunResult((sample,), (sample,), SampleCounts(1), SamplingRequest()))
    return recording.events


@settings(deadline=None)
@given(DELTAS)
def test_every_run_of_one_kind_is_a_block(deltas: list[tuple[str, str]]) -> None:
    """Blocks open empty, grow, and close whole, one after the other, numbered without a gap."""
    events = calls(deltas, request())
    pieces = [(kind, text) for kind, text in deltas if text]
    runs = [(kind, [text for _, text in run]) for kind, run in groupby(pieces, key=lambda delta: delta[0])]
    expected = [("begin", -1, "")]
    for index, (kind, texts) in enumerate(runs):
        expected.append((f"open {kind}", index, ""))
        expected += [("grow", index, text) for text in texts]
        expected.append(("close", index, "".join(texts)))
    assert events == [*expected, ("end", -1, "")]


@settings(deadline=None)
@given(DELTAS)
def test_excluded_thinking_leaves_no_trace(deltas: list[tuple[str, str]]) -> None:
    """Without the thinking, the blocks are those of the text alone."""
    text_alone = [(kind, text) for kind, text in deltas if kind == "text"]
    assert calls(deltas, request(exclude_reasoning=True)) == calls(text_alone, request())


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_whole_sample_has_the_blocks_of_its_stream(reasoning: str, content: str) -> None:
    """An unstreamed reply has the same blocks as a stream that thinks first."""
    events = calls([("thinking", reasoning), ("text", content)], request())
    closed = [(index, text) for call, index, text in events if call == "close"]
    blocks = blocks_of(request(), Sample(0, content, reasoning))
    assert [(block.index, block.text) for block in blocks] == closed


ARGUMENTS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), min_size=1, max_size=3).map(json.dumps)


@st.composite
def interleaved_calls(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, str]]]:
    """Draw the arguments of some calls, and their fragments in any order that keeps each call's own."""
    arguments = draw(st.lists(ARGUMENTS, min_size=1, max_size=4))
    rest, fragments = dict(enumerate(arguments)), []
    while rest:
        index = draw(st.sampled_from(sorted(rest)))
        length = draw(st.integers(1, len(rest[index])))
        fragments.append((index, rest[index][:length]))
        rest[index] = rest[index][length:]
        if not rest[index]:
            del rest[index]
    return arguments, fragments


@settings(deadline=None)
@given(interleaved_calls(), st.integers(0, 20))
def test_calls_come_whole_in_whatever_turns_they_are_written(
    written: tuple[list[str], list[tuple[int, str]]], text_after: int
) -> None:
    """No block grows after its end, blocks don't overlap, and no part of a call or a text is lost."""
    arguments, fragments = written
    recording = _Recording()
    stream = BlockStream(request(), recording)
    for place, (index, part) in enumerate(fragments):
        call = {"index": index, "id": f"call_{index}", "function": {"name": "f", "arguments": part}}
        stream.delta(Delta(0, "", "", {}, {"delta": {"tool_calls": [call]}}))
        if place == text_after:
            stream.delta(Delta(0, "", "Done.", {}, {}))
    sample = Sample(0, "")
    stream.finish(RunResult((sample,), (sample,), SampleCounts(1), SamplingRequest()))
    events = recording.events[1:-1]
    for index, block in groupby(events, key=lambda event: event[1]):
        opened, *grown, closed = block
        assert opened[2] == ""
        assert {event for event, _, _ in grown} <= {"grow"}
        assert closed == ("close", index, "".join(text for _, _, text in grown))
    texts = [text for event, _, text in events if event == "close"]
    assert sorted(text for text in texts if text != "Done.") == sorted(arguments)
    assert texts.count("Done.") == (text_after < len(fragments))
