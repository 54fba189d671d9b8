"""Code data sets on the hub, as their columns are."""

import json

import pytest

from training.data.hub import HubSet, problems_of_records
from training.data.problems import DataError
from training.types import Problem, ProgramCase

CASES = (ProgramCase("1 2\n", "3\n"),)


def test_apps_needs_no_columns() -> None:
    """Its question and its inputs and outputs have known names; other columns are left alone."""
    record = {
        "problem_id": 0,
        "question": "Add two numbers.",
        "solutions": "[]",
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "difficulty": "interview",
    }
    assert problems_of_records([record], HubSet("codeparrot/apps")) == [
        Problem("apps/1", "Add two numbers.", reward="tests", source="apps", cases=CASES)
    ]


def test_livecodebench_names_its_columns() -> None:
    """Its public cases are a text that holds a list."""
    columns = {"id": "question_id", "question": "question_content", "cases": "public_test_cases"}
    hub_set = HubSet("livecodebench/code_generation_lite", columns=columns)
    case = {"input": "1 2\n", "output": "3\n", "testtype": "stdin"}
    record = {
        "question_id": "1873_A",
        "question_content": "Add two numbers.",
        "public_test_cases": json.dumps([case]),
    }
    (problem,) = problems_of_records([record], hub_set)
    assert (problem.id, problem.reward, problem.cases) == ("1873_A", "tests", CASES)
    record["public_test_cases"] = json.dumps([{**case, "testtype": "functional"}])
    with pytest.raises(DataError, match=r"data set 'livecodebench/.*', line 1: testtype 'functional'"):
        problems_of_records([record], hub_set)


@pytest.mark.parametrize(
    "hub_set",
    [HubSet("a/set", columns={"prompt": "question"}), HubSet("a/set", fixed={"judge": "tests"})],
    ids=["columns", "fixed"],
)
def test_an_unknown_field_is_an_error(hub_set: HubSet) -> None:
    """A misspelt field in the configuration is named, with the fields there are."""
    with pytest.raises(DataError, match=r"data set 'a/set', line 1: unknown field '.*'; allowed: answer"):
        problems_of_records([{"question": "2+2?", "answer": 4}], hub_set)
