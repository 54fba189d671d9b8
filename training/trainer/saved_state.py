"""State that survives a restart: frozen dataclasses of plain values, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


def to_json(state: DataclassInstance) -> dict[str, Any]:
    """Return a dataclass of plain values, and tuples of them, as `json` can write it."""
    return dataclasses.asdict(state)


def from_json(kind: type[T], fields: Mapping[str, object]) -> T:
    """Return the state that `to_json` was given, also after `json`. Raises TypeError for other fields."""
    return kind(**{name: _frozen(value) for name, value in fields.items()})


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
