"""Cases of programs, in the forms that code data sets have."""

import json
from typing import Any

import pytest

from training.data.cases import parse_cases, parse_seconds
from training.types import ProgramCase

ONE = ProgramCase("1 2\n", "3\n")


@pytest.mark.parametrize(
    "value",
    [
        [{"input": "1 2\n", "output": "3\n"}],
        [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}],
        {"inputs": ["1 2\n"], "outputs": ["3\n"]},
        {"inputs": ["1 2\n"], "outputs": ["3\n"], "fn_name": None},
        {"inputs": [["1 2", ""]], "outputs": [["3", ""]]},
    ],
    ids=["a list", "LiveCodeBench", "APPS", "no function", "lists of lines"],
)
def test_both_forms_are_read(value: Any) -> None:
    """As JSON, and as a text that holds JSON."""
    assert parse_cases(value) == parse_cases(json.dumps(value)) == (ONE,)


@pytest.mark.parametrize("value", [None, "", " ", [], {"inputs": [], "outputs": []}])
def test_nothing_is_no_cases(value: Any) -> None:
    """An empty column of a set says nothing."""
    assert parse_cases(value) == ()


def test_a_case_may_state_its_time() -> None:
    """Its own limit goes before that of all cases, and that before the problem's."""
    case = {"input": "1 2\n", "output": "3\n"}
    assert [parsed.seconds for parsed in parse_cases([case, {**case, "seconds": 2}], 3.0)] == [3.0, 2.0]
    columns = {"inputs": ["a", "b"], "outputs": ["c", "d"]}
    assert [parsed.seconds for parsed in parse_cases({**columns, "seconds": 0.5}, 3.0)] == [0.5, 0.5]
    assert [parsed.seconds for parsed in parse_cases(columns)] == [None, None]


@pytest.mark.parametrize(
    ("value", "seconds"), [(2, 2.0), (0.5, 0.5), ("2 seconds", 2.0), ("2.0 s", 2.0), ("1 second", 1.0)]
)
def test_a_time_limit_is_a_number_of_seconds(value: Any, seconds: float) -> None:
    """As a number, or as TACO writes it."""
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize("value", [0, -1, True, "soon", "inf", []])
def test_another_time_limit_is_an_error(value: Any) -> None:
    """It must be over 0."""
    with pytest.raises(ValueError, match="a time limit is a number of seconds over 0"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not valid JSON"),
        (3, "cases are"),
        (["1"], "cases are"),
        ([{"input": "1"}], "a text or a list of lines"),
        ([{"input": "1", "output": 3}], "a text or a list of lines"),
        ([{"input": "1", "output": "1", "time": 3}], "unknown field 'time' of a case; allowed: input, "),
        ([{"input": "1", "output": "1", "testtype": "functional"}], "testtype 'functional'"),
        ({"inputs": ["1"], "outputs": []}, "as many outputs as inputs"),
        ({"inputs": ["1"]}, "as many outputs as inputs"),
        ({"inputs": [[1]], "outputs": [[1]], "fn_name": "f"}, "write calls of a function as tests"),
    ],
)
def test_wrong_cases_are_an_error(value: Any, message: str) -> None:
    """The message says which forms there are."""
    with pytest.raises(ValueError, match=message):
        parse_cases(value)
