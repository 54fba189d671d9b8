"""A reply as a row of blocks, however its text was cut into deltas."""

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


class _Told:
    """A format that only writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, str]] = []

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        self.events.append(("begin", -1, ""))
        return b""

    def opened(self, block: Block) -> bytes:
        self.events.append((f"open {block.kind}", block.place, block.text))
        return b""

    def grew(self, block: Block, text: str) -> bytes:
        self.events.append(("grow", block.place, text))
        return b""

    def closed(self, block: Block) -> bytes:
        self.events.append(("close", block.place, block.text))
        return b""

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        raise AssertionError("nothing votes here")

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        self.events.append(("end", -1, ""))
        return b""

    def failed(self, error: GatewayError) -> bytes:
        raise AssertionError("nothing fails here")


def request(**reply: Any) -> RunRequest:
    """A request that is for one sample, without a budget."""
    body = {"messages": [{"role": "user", "content": "hi"}]}
    return plan_request(
        body,
        RequestedSampling(),
        ReplyOptions(stream=True, **reply),
        ServedModel("tiny", find_family("tiny")),
    )


def written(deltas: list[tuple[str, str]], work: RunRequest) -> list[tuple[str, int, str]]:
    """What a format is told of a reply in these deltas."""
    told = _Told()
    stream = BlockStream(work, told)
    for kind, text in deltas:
        reasoning, content = (text, "") if kind == "thinking" else ("", text)
        stream.delta(Delta(0, reasoning, content, {}, {}))
    sample = Sample(0, "".join(text for kind, text in deltas if kind == "text"))
    stream.finish(RunResult((sample,), (sample,), SampleCounts(1), SamplingRequest()))
    return told.events


@settings(deadline=None)
@given(DELTAS)
def test_every_run_of_one_kind_is_a_block(deltas: list[tuple[str, str]]) -> None:
    """Blocks open empty, grow, and close whole, one after the other, numbered without a gap."""
    events = written(deltas, request())
    said = [(kind, text) for kind, text in deltas if text]
    runs = [(kind, [text for _, text in run]) for kind, run in groupby(said, key=lambda delta: delta[0])]
    expected = [("begin", -1, "")]
    for place, (kind, texts) in enumerate(runs):
        expected.append((f"open {kind}", place, ""))
        expected += [("grow", place, text) for text in texts]
        expected.append(("close", place, "".join(texts)))
    assert events == [*expected, ("end", -1, "")]


@settings(deadline=None)
@given(DELTAS)
def test_excluded_thinking_leaves_no_trace(deltas: list[tuple[str, str]]) -> None:
    """Without the thinking the row is that of the text alone."""
    text_alone = [(kind, text) for kind, text in deltas if kind == "text"]
    assert written(deltas, request(exclude_reasoning=True)) == written(text_alone, request())


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_whole_sample_has_the_blocks_of_its_stream(reasoning: str, content: str) -> None:
    """Unstreamed, the same blocks come as from a stream that thinks first."""
    events = written([("thinking", reasoning), ("text", content)], request())
    closed = [(place, text) for what, place, text in events if what == "close"]
    blocks = blocks_of(request(), Sample(0, content, reasoning))
    assert [(block.place, block.text) for block in blocks] == closed
