"""Unit tests of whole programs, in the forms that code data sets have.

    [{"input": "1 2\\n", "output": "3\\n"}, ...]                       as LiveCodeBench has them
    {"inputs": ["1 2\\n", ...], "outputs": ["3\\n", ...]}              as APPS and TACO have them

Both may stand as JSON or as a text that holds JSON. Inputs and outputs are texts, or lists of their lines.
A case, or the whole object, may state its `seconds`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from training.types import ProgramCase

__all__ = ["parse_cases", "parse_seconds"]

_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)?\s*", re.IGNORECASE)
_FORMS = 'cases are [{"input", "output"}, ...] or {"inputs": [...], "outputs": [...]}'
_CASE = {"input", "output", "seconds", "testtype"}
_COLUMNS = {"inputs", "outputs", "seconds"}


def parse_cases(value: Any, seconds: float | None = None) -> tuple[ProgramCase, ...]:
    """Return the cases that a field holds; `seconds` is for those that state none. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"{_FORMS}; the text is not valid JSON ({error})") from error
    if value is None:
        return ()
    if isinstance(value, dict):
        value = _transpose(value)
    if not isinstance(value, list) or not all(isinstance(case, dict) for case in value):
        raise ValueError(_FORMS)
    return tuple(_case(case, seconds) for case in value)


def parse_seconds(value: Any) -> float | None:
    """Read a time limit in seconds from a number, or a text as "2 seconds"; None stays None.

    Raises ValueError.
    """
    if value is None:
        return None
    match = _SECONDS.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None or not float(match[1]):
        raise ValueError(f"a time limit is a number of seconds over 0, not {value!r}")
    return float(match[1])


def _transpose(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn columns of inputs and outputs into one object for each case. Raises ValueError."""
    if columns.get("fn_name"):
        raise ValueError("fn_name: cases are run as programs; write calls of a function as tests")
    _known(columns, _COLUMNS | {"fn_name"})
    inputs, outputs = columns.get("inputs"), columns.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError(f"{_FORMS}, as many outputs as inputs")
    shared = {"seconds": columns.get("seconds")}
    return [
        {**shared, "input": text, "output": expected} for text, expected in zip(inputs, outputs, strict=True)
    ]


def _case(fields: Mapping[str, Any], seconds: float | None) -> ProgramCase:
    _known(fields, _CASE)
    if fields.get("testtype", "stdin") != "stdin":
        raise ValueError(f"testtype {fields['testtype']!r}: cases are run as programs ('stdin')")
    own = parse_seconds(fields.get("seconds"))
    return ProgramCase(
        _text(fields.get("input")), _text(fields.get("output")), seconds if own is None else own
    )


def _known(fields: Mapping[str, Any], names: set[str]) -> None:
    if unknown := sorted(set(fields) - names):
        raise ValueError(f"unknown field {unknown[0]!r} of a case; allowed: {', '.join(sorted(names))}")


def _text(value: Any) -> str:
    """Return a text, of itself or of its lines. Raises ValueError."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{_FORMS}, where each is a text or a list of lines")
    return value
