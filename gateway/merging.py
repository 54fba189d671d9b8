"""Puts a streamed message together again from its deltas, whatever fields they have."""

from __future__ import annotations

from typing import Any

__all__ = ["merge"]

_WHOLE = frozenset({"role", "id", "type", "name", "call_id"})
"""Fields whose text comes whole in one delta, so that a later one replaces it."""


def merge(old: Any, new: Any, key: str = "") -> Any:
    """What a field holds after one more delta: texts grow, lists grow, objects merge, the rest is replaced.

    Lists of objects with an `index` (OpenAI's `tool_calls`) merge object by object. Neither
    argument is changed.
    """
    if old is None or new is None:
        return old if new is None else new
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: merge(old.get(name), value, name) for name, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return _merge_lists(old, new)
    if isinstance(old, str) and isinstance(new, str) and key not in _WHOLE:
        return old + new
    return new


def _merge_lists(old: list[Any], new: list[Any]) -> list[Any]:
    merged = list(old)
    places = {item["index"]: place for place, item in enumerate(old) if _indexed(item)}
    for item in new:
        if _indexed(item) and item["index"] in places:
            place = places[item["index"]]
            merged[place] = merge(merged[place], item)
        else:
            merged.append(item)
    return merged


def _indexed(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("index"), int)
