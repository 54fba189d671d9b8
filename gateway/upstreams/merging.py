"""Joins the deltas of a streamed message, whatever fields they have."""

from __future__ import annotations

from typing import Any

__all__ = ["merge"]

_WHOLE = frozenset({"role", "id", "type", "name", "call_id"})
"""Fields whose text comes whole in one delta, so that a later delta replaces it."""


def merge(old: Any, new: Any, key: str = "") -> Any:
    """Return a field after one more delta: texts and lists grow, objects merge, other values are replaced.

    Lists of objects with an `index` (OpenAI's `tool_calls`) merge object by object. `old` is what an earlier
    call returned (None at first). It grows in place, so that a delta to a long list, as of logprobs, costs
    only its own length. `new` never changes.
    """
    if new is None:
        return old
    if isinstance(new, dict):
        return _merge_objects(old if isinstance(old, dict) else {}, new)
    if isinstance(new, list):
        return _merge_lists(old if isinstance(old, list) else [], new)
    if isinstance(old, str) and isinstance(new, str) and key not in _WHOLE:
        return old + new
    return new


def _merge_objects(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for name, value in new.items():
        old[name] = merge(old.get(name), value, name)
    return old


def _merge_lists(old: list[Any], new: list[Any]) -> list[Any]:
    for item in new:
        if not isinstance(item, dict):
            old.append(item)
            continue
        index = item.get("index")
        same = None if index is None else next((item for item in old if _index(item) == index), None)
        if same is None:
            old.append(merge(None, item))
        else:
            _merge_objects(same, item)
    return old


def _index(item: Any) -> Any:
    return item.get("index") if isinstance(item, dict) else None
