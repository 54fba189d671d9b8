"""Reading server-sent events from bytes that may be cut anywhere."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.sse import DONE, event
from gateway.upstreams.sse import EventParser

payloads = st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=8)


def parsed(wire: bytes, cuts: list[int]) -> list[bytes]:
    """Return the payloads of these bytes, cut at these places."""
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    parser = EventParser()
    return [payload for start, end in pairwise(places) for payload in parser.feed(wire[start:end])]


@given(payloads, st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_no_chunking_changes_the_events(sent: list[bytes], cuts: list[int], line_end: bytes) -> None:
    """Every payload comes out whole and in order, with either line end."""
    wire = b"".join(event(payload) for payload in sent).replace(b"\n", line_end)
    assert parsed(wire, cuts) == sent


@given(st.lists(st.integers(0, 200), max_size=12))
def test_comments_and_other_fields_are_passed_over(cuts: list[int]) -> None:
    """The parser skips keep-alive comments, ids, event names and retry times."""
    wire = b": ping\n\nevent: x\nid: 3\nretry: 10\ndata: 1\n\n:\n\ndata:2\n\n" + DONE
    assert parsed(wire, cuts) == [b"1", b"2", b"[DONE]"]


def test_several_data_lines_are_one_payload() -> None:
    """Lines of one event are joined by a line feed, as the standard says."""
    assert EventParser().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_an_unfinished_event_is_no_event() -> None:
    """An event is complete only after a blank line."""
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
