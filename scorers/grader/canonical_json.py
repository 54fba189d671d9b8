"""Writes one text for equal JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["canonical_json", "read_json"]

MAX_DEPTH = 64


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys, no spaces, and one form for equal numbers (1, 1.0, 1e0).

    `value` is a result of `json.loads`, also with `parse_float=Decimal`. Raises ValueError for
    values that are not JSON's, and for nesting deeper than 64.
    """
    return _write(value, 0)


def read_json(text: str) -> Any:
    """Return the JSON value of `text`, with exact numbers. Raises ValueError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _write(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return _number(Decimal(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not a JSON number")
        return _number(Decimal(repr(value)))
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        pairs = sorted((str(key), item) for key, item in value.items()) if _has_string_keys(value) else None
        if pairs is None:
            raise ValueError("a key that is no string")
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_write(v, depth + 1)}" for k, v in pairs)
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    raise ValueError(f"not a JSON value: {type(value).__name__}")


def _has_string_keys(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in value)


def _number(value: Decimal) -> str:
    """Return the shortest plain form with up to 20 zeros on either side, else digits and an exponent."""
    if not value.is_finite():
        raise ValueError("not a JSON number")
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    significant = text.rstrip("0")
    if not significant:
        return "0"
    exponent = int(exponent) + len(text) - len(significant)
    minus = "-" if sign else ""
    if 0 <= exponent <= 20:
        return minus + significant + "0" * exponent
    if -20 <= exponent < 0:
        padded = significant.rjust(1 - exponent, "0")
        return f"{minus}{padded[:exponent]}.{padded[exponent:]}"
    return f"{minus}{significant}e{exponent}"
