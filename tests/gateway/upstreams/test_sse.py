"""Reading server-sent events from bytes that may be cut anywhere."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.sse import DONE, event
from gateway.errors import UpstreamUnreachable
from gateway.upstreams.sse import ErrorPayload, EventCutter, EventParser

payloads = st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=8)
places = st.lists(st.integers(0, 10_000), max_size=12)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


def cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    """Return the bytes, cut at these places."""
    edges = [0, *sorted(place % (len(wire) + 1) for place in cuts), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges)]


def parsed(wire: bytes, cuts: list[int]) -> list[bytes]:
    """Return the payloads of these bytes, cut at these places."""
    parser = EventParser()
    return [payload for block in cut(wire, cuts) for payload in parser.feed(block)]


@given(payloads, places, line_ends, st.booleans())
def test_no_chunking_changes_the_events(sent: list[bytes], cuts: list[int], end: bytes, mark: bool) -> None:
    """Every payload comes out whole and in order, with each line end, and after a byte order mark."""
    wire = b"".join(event(payload) for payload in sent).replace(b"\n", end)
    assert parsed(b"\xef\xbb\xbf" * mark + wire, cuts) == sent


@given(places)
def test_comments_and_other_fields_are_passed_over(cuts: list[int]) -> None:
    """The parser skips keep-alive comments, ids, event names and retry times."""
    wire = b": ping\n\nevent: x\nid: 3\nretry: 10\ndata: 1\n\n:\n\ndata:2\n\n" + DONE
    assert parsed(wire, cuts) == [b"1", b"2", b"[DONE]"]


@given(places, line_ends)
def test_an_event_named_error_is_told_apart(cuts: list[int], end: bytes) -> None:
    """Its payload has a type of its own; the name ends with its event."""
    wire = b"data: 1\n\nevent: error\ndata: boom\n\nevent: error\n\ndata: 2\n\n".replace(b"\n", end)
    found = parsed(wire, cuts)
    assert found == [b"1", b"boom", b"", b"2"]
    assert [isinstance(payload, ErrorPayload) for payload in found] == [False, True, True, False]


def test_several_data_lines_are_one_payload() -> None:
    """Lines of one event are joined by a line feed, as the standard says."""
    assert EventParser().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_an_unfinished_event_is_no_event() -> None:
    """An event is complete only after a blank line, or at the end of the stream."""
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
    assert parser.feed(b"data: b") == []
    assert parser.end() == [b"b"]


@pytest.mark.parametrize("block", [b"data: " + b"a" * 40, b"data: a\n" * 20, b"data: " + b"a" * 40 + b"\n\n"])
def test_an_event_that_is_too_long_is_refused(block: bytes) -> None:
    """The refusal names the setting, before the event has ended."""
    pieces = [block[start : start + 8] for start in range(0, len(block), 8)]
    for reader in (EventParser(32), EventCutter(32)):
        with pytest.raises(UpstreamUnreachable, match=r"longer than max_event_bytes \(32\)"):
            list(map(reader.feed, pieces))


def test_many_comments_are_no_long_event() -> None:
    """Comments take no room, however many come."""
    parser = EventParser(64)
    assert parser.feed(b": still working\n\n" * 100) == []
    assert parser.feed(b"data: 1\n" + b": again\n" * 100 + b"\n") == [b"1"]


def test_the_time_is_linear_in_the_bytes() -> None:
    """An event in 80,000 pieces takes about as long as 80,000 events of one piece."""

    def seconds(blocks: list[bytes]) -> float:
        parser, start = EventParser(), time.process_time()
        for block in blocks:
            parser.feed(block)
        return time.process_time() - start

    piece = b"a" * 100
    assert seconds([b"data: ", *[piece] * 80_000]) < 4 * seconds([b"data: " + piece + b"\n\n"] * 80_000) + 0.5


@given(payloads, places, line_ends)
def test_a_cutter_changes_no_byte_and_ends_where_events_end(
    sent: list[bytes], cuts: list[int], end: bytes
) -> None:
    """Its pieces join to the stream, and hold whole events only."""
    wire = b": hello\n\n" + b"".join(event(payload) for payload in sent)
    wire = wire.replace(b"\n", end)
    cutter = EventCutter()
    pieces = [cutter.feed(block) for block in cut(wire, cuts)]
    assert b"".join(pieces) + cutter.end() == wire
    assert [payload for piece in pieces for payload in EventParser().feed(piece)] == sent[
        : sum(len(EventParser().feed(piece)) for piece in pieces)
    ]
