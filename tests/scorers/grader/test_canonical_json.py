"""The canonical JSON by which JSON answers and tool calls are grouped."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import canonical_json, equivalent, extract

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_json_is_idempotent(value: object) -> None:
    """Parsing the form with exact numbers and writing it again changes nothing."""
    once = canonical_json(value)
    assert canonical_json(json.loads(once, parse_float=Decimal)) == once


def test_keys_are_sorted_and_numbers_normalised() -> None:
    """1, 1.0 and 1e0 are one number, and the order of an object's keys does not matter."""
    assert canonical_json({"b": 1.0, "a": [Decimal("1e2"), -0.0]}) == '{"a":[100,0],"b":1}'
    assert canonical_json({"n": 0.1}) == canonical_json({"n": Decimal("0.10")})


def test_true_is_not_one() -> None:
    """Booleans stay booleans, though Python can count with them."""
    assert canonical_json([True]) != canonical_json([1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, object(), {"a"}])
def test_values_that_are_not_jsons_are_refused(value: object) -> None:
    """NaN, keys that are no strings, and other Python values have no form."""
    with pytest.raises(ValueError, match=r"JSON|key"):
        canonical_json(value)


def test_deep_nesting_is_refused() -> None:
    """A hostile value is an error and does not exhaust the stack."""
    value: object = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="deep"):
        canonical_json(value)


def test_json_replies_are_one_answer_whatever_their_layout() -> None:
    """Layout, order of keys and form of numbers do not split a vote."""
    a, b = extract('{"city": "Paris", "n": 2.0}'), extract('{\n  "n": 2,\n  "city": "Paris"\n}')
    assert a is not None
    assert b is not None
    assert a.key == b.key
    other = extract('{"city": "Lyon", "n": 2}')
    assert other is not None
    assert equivalent(a, other) is False
