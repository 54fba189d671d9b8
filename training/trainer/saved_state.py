"""States that are kept over a restart: frozen dataclasses of plain values, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


def to_json(state: Any) -> dict[str, Any]:
    """A state as what `json` can write; `state` is a dataclass of plain values and tuples of them."""
    return dataclasses.asdict(state)


def from_json(kind: type[T], fields: Mapping[str, Any]) -> T:
    """The state that `to_json` was given, before or after `json`. Raises TypeError for other fields."""
    return kind(**{name: _frozen(value) for name, value in fields.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
