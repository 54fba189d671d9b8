"""Joining a message from its deltas."""

from functools import reduce
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.merging import merge

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def folded(deltas: list[Any]) -> Any:
    """Merge all deltas of one field, one after another."""
    return reduce(merge, deltas, None)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """Return the text, cut at these places."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@given(st.text(), st.lists(st.integers(0, 100), max_size=6))
def test_text_is_the_same_however_it_was_cut(text: str, cuts: list[int]) -> None:
    """Deltas of a text concatenate to it."""
    assert folded(pieces(text, cuts)) == text


@given(st.lists(st.lists(st.integers()), min_size=1))
def test_lists_without_an_index_are_concatenated(parts: list[list[int]]) -> None:
    """Lists, such as logprobs, grow in order and lose nothing."""
    assert folded(parts) == [item for part in parts for item in part]


@given(st.lists(st.integers(0, 100), max_size=6), st.lists(st.integers(0, 100), max_size=6))
def test_tool_calls_merge_by_their_index(first: list[int], second: list[int]) -> None:
    """Arguments streamed in pieces, two calls interleaved, give the two whole calls."""
    one, two = '{"a": 1, "b": "x"}', '{"c": [2]}'
    deltas: list[Any] = [
        [{"index": 0, "id": "call_0", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 1, "id": "call_1", "type": "function", "function": {"name": "g", "arguments": ""}}],
    ]
    left, right = pieces(one, first), pieces(two, second)
    for place in range(max(len(left), len(right))):
        for index, parts in enumerate((left, right)):
            if place < len(parts):
                deltas.append([{"index": index, "function": {"arguments": parts[place]}}])
    assert folded(deltas) == [
        {"index": 0, "id": "call_0", "type": "function", "function": {"name": "f", "arguments": one}},
        {"index": 1, "id": "call_1", "type": "function", "function": {"name": "g", "arguments": two}},
    ]


def test_a_repeated_name_replaces_the_first() -> None:
    """Some engines send a call's name, id and type with every delta; they don't grow."""
    again = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "}"}}
    start = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{"}}
    assert folded([start, again])["function"] == {"name": "add", "arguments": "{}"}


def test_reasoning_details_merge_by_type_and_index() -> None:
    """OpenRouter's texts grow, format and signature are replaced, and details of two kinds stay apart."""

    def text(part: str, **fields: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "text": part, "format": "anthropic-claude-v1", "index": 0, **fields}

    sealed = {"type": "reasoning.encrypted", "data": "x", "index": 0}
    deltas = [
        [text("I ")],
        [text("think", signature="s")],
        [sealed],
        [{**sealed, "data": "y"}],
        [text("!", index=1)],
    ]
    assert folded([{"reasoning_details": delta} for delta in deltas])["reasoning_details"] == [
        text("I think", signature="s"),
        {**sealed, "data": "xy"},
        text("!", index=1),
    ]


def test_sealed_details_with_ids_of_their_own_stay_apart() -> None:
    """They have no index; two of them joined could be opened by nobody."""
    sealed = [{"type": "reasoning.encrypted", "data": "x", "id": name} for name in "ab"]
    assert folded([{"reasoning_details": [each]} for each in sealed]) == {"reasoning_details": sealed}


def test_annotations_are_only_ever_added() -> None:
    """Each is whole, even if its index repeats."""
    notes = [{"type": "url_citation", "index": 0, "url": name} for name in "ab"]
    assert folded([{"annotations": [note]} for note in notes]) == {"annotations": notes}


def test_null_says_nothing() -> None:
    """A null in a delta changes nothing."""
    assert folded(["a", None, "b"]) == "ab"
    assert folded([{"refusal": "no"}, {"refusal": None}]) == {"refusal": "no"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values), min_size=1, max_size=4))
def test_the_deltas_themselves_stay_as_they_are(deltas: list[dict[str, Any]]) -> None:
    """Events are passed on to the client as well, so folding must not write into them."""
    before = repr(deltas)
    folded(deltas)
    assert repr(deltas) == before
