"""Tool calls of engines that each stream them in their own way."""

import re
from functools import reduce
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.merging import merge
from gateway.upstreams.tool_calls import Malformed, ToolCallReader, check_tool_calls


def call(index: int | None, call_id: str | None, name: str | None, arguments: object) -> dict[str, Any]:
    """Return a fragment; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    fields = {"index": index, "id": call_id}
    present = {key: value for key, value in fields.items() if value is not None}
    return {**present, "function": {key: value for key, value in function.items() if value is not None}}


def read(*fragments: object) -> list[tuple[Any, ...]]:
    """Return the calls that the fragments give, one fragment a delta: index, id, name, arguments."""
    reader = ToolCallReader()
    calls: Any = reduce(merge, (reader.read([fragment]) for fragment in fragments), [])
    return [
        (each["index"], each.get("id"), each["function"].get("name"), each["function"]["arguments"])
        for each in calls
    ]


class NewId:
    """Equals every id that the gateway makes up."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch("call_[0-9a-f]{32}", other) is not None

    __hash__ = None


NEW = NewId()
A, B = ("a", "read", '{"path": "a"}'), ("b", "write", '{"path": "b"}')


@pytest.mark.parametrize(
    ("fragments", "calls"),
    [
        ([call(0, *A), call(0, *B)], [(0, *A), (1, *B)]),  # Ollama: both at index 0
        ([call(None, *A), call(None, *B)], [(0, *A), (1, *B)]),  # none at all
        ([call(0, *A), call(0, *A)], [(0, *A)]),  # the whole call again at its end
        ([call(0, *A), call(0, None, None, A[2])], [(0, *A)]),
        ([call(0, *A), {}, None, call(0, "", "", "")], [(0, *A)]),  # empty fragments
        ([call(0, "a", "read", None), call(0, "a", "read", A[2])], [(0, *A)]),  # the name with each
        ([call(0, "a", "read", ""), call(0, "", "", A[2])], [(0, *A)]),  # "" where others leave it out
        ([call(None, "a", "read", ""), call(None, None, None, A[2])], [(0, *A)]),  # the last call
        (
            [call(None, None, "read", A[2]), call(None, None, "write", B[2])],
            [(0, NEW, *A[1:]), (1, NEW, *B[1:])],
        ),
        (
            [call(0, None, "read", A[2]), call(0, None, "read", B[2])],
            [(0, NEW, *A[1:]), (1, NEW, "read", B[2])],
        ),
        ([call(0, None, "read", ""), call(0, "a", None, A[2])], [(0, NEW, *A[1:])]),  # its id comes late
        ([call(0, "a", "re", ""), call(0, None, "ad", None), call(0, None, None, A[2])], [(0, *A)]),  # split
        ([call(0, "a", "re", ""), call(0, "a", "read", None), call(0, "a", "read", A[2])], [(0, *A)]),
        (
            [call(0, "a", "read", A[2][:3]), call(0, "b", None, A[2][3:7]), call(0, "c", "", A[2][7:])],
            [(0, *A)],  # a new id with each fragment
        ),
        ([call(0, "a", "read", {"path": "a"})], [(0, "a", "read", '{"path":"a"}')]),  # an object
        ([call(0, 7, "read", A[2])], [(0, "7", *A[1:])]),  # type: ignore[arg-type]
        ([call(0, "a", "functions.read<|channel|>commentary", A[2])], [(0, *A)]),  # harmony's tags
        ([call(0, *A), call(1, "a", "write", B[2])], [(0, *A), (1, "a_1", *B[1:])]),  # one id for two
        ([{**call(0, *A), "index": "0"}], [(0, *A)]),
        ([call(3, *A), call(1, *B)], [(3, *A), (1, *B)]),  # indices that differ stay
    ],
)
def test_each_call_has_an_index_of_its_own(fragments: list[object], calls: list[Any]) -> None:
    """Whatever indices and ids an engine sends, clients get whole calls apart from each other."""
    assert read(*fragments) == calls


def test_a_name_comes_once_and_so_does_an_id() -> None:
    """Clients join the parts of a name and of an id, so nothing comes twice."""
    reader = ToolCallReader()
    sent = [call(0, "a", "re", ""), call(0, None, "ad", "{"), call(0, "c", None, "}")]
    assert [reader.read([fragment])[0] for fragment in sent] == [
        call(0, "a", "re", ""),
        {"index": 0, "function": {"name": "ad", "arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
    ]


def test_regular_fragments_pass_unchanged() -> None:
    """They are the engine's own objects."""
    first = {**call(0, "a", "read", ""), "type": "function", "vendor": [1]}
    second = call(0, None, None, "{}")
    reader = ToolCallReader()
    assert reader.read([first])[0] is first
    assert reader.read([second])[0] is second
    whole = {"id": "a", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    assert check_tool_calls([whole])[0] is whole


@given(st.lists(st.integers(0, 100), max_size=6), st.lists(st.integers(0, 100), max_size=6), st.booleans())
def test_interleaved_calls_stay_apart(first: list[int], second: list[int], named: bool) -> None:
    """Two calls streamed in pieces, in turns, come out as they are, wherever they were cut."""

    def fragments(index: int, whole: tuple[str, str, str], cuts: list[int]) -> list[dict[str, Any]]:
        call_id, name, text = whole
        edges = [0, *sorted(place % (len(text) + 1) for place in cuts), len(text)]
        pieces = [call(index, None, name if named else None, text[a:b]) for a, b in pairwise(edges)]
        return [call(index, call_id, name, ""), *pieces]

    left, right = fragments(0, A, first), fragments(1, B, second)
    turns = [part for pair in zip(left, right, strict=False) for part in pair]
    rest = [*left[len(right) :], *right[len(left) :]]
    assert read(*turns, *rest) == [(0, *A), (1, *B)]


@pytest.mark.parametrize("calls", ["x", 5, {"a": 1}, [5], [{"function": 3}], [{"function": {"name": 3}}]])
def test_what_is_no_call_is_malformed(calls: object) -> None:
    """The choice is then unusable, streamed or whole."""
    for reading in (ToolCallReader().read, check_tool_calls):
        with pytest.raises(Malformed):
            reading(calls)


def test_the_calls_of_a_whole_reply_have_ids_that_differ() -> None:
    """A repeated or empty call is left out, a call without its own id gets one, and objects become text."""
    sent = [
        call(None, *A),
        call(None, *A),
        call(None, "a", "write", {"path": "b"}),
        call(None, "", "read", "{}"),
        {"function": None},
    ]
    assert [(each.get("id"), each["function"]["arguments"]) for each in check_tool_calls(sent)] == [
        ("a", A[2]),
        ("a_1", '{"path":"b"}'),
        (NEW, "{}"),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "id", "function", "name", "arguments", "type"]), inner)
    ),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=4))
def test_any_json_gives_calls_or_is_malformed(fragments: list[Any]) -> None:
    """Nothing else comes out, and indices never repeat within an event's own calls."""
    reader = ToolCallReader()
    try:
        calls = reader.read(fragments)
    except Malformed:
        return
    for each in calls:
        assert type(each["index"]) is int
        assert isinstance(each["function"].get("name", ""), str)
        assert isinstance(each["function"].get("arguments", ""), str)
        assert isinstance(each.get("id"), (str, type(None)))
