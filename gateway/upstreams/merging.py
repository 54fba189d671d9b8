"""Joins the deltas of a streamed message, whatever fields they have."""

from __future__ import annotations

from typing import Any

__all__ = ["merge"]

_WHOLE = frozenset({"role", "id", "type", "name", "call_id", "format", "signature"})
"""Fields whose text comes whole in one delta, so that a later delta replaces it."""


def merge(old: Any, new: Any, key: str = "") -> Any:
    """Return a field after one more delta: texts and lists grow, objects merge, other values are replaced.

    Lists of objects with an `index` (OpenAI's `tool_calls`) merge object by object, and a function's
    name grows unless it is repeated. OpenRouter's
    `reasoning_details` merge by type and index, and `annotations` are only ever added. `old` is what an
    earlier call returned (None at first). It grows in place, so that a delta to a long list, as of logprobs,
    costs only its own length. `new` never changes.
    """
    if new is None:
        return old
    if isinstance(new, dict):
        return _merge_objects(old if isinstance(old, dict) else {}, new, key)
    if isinstance(new, list):
        return _merge_lists(old if isinstance(old, list) else [], new, key)
    if isinstance(old, str) and isinstance(new, str) and key not in _WHOLE:
        return old + new
    return new


def _merge_objects(old: dict[str, Any], new: dict[str, Any], key: str = "") -> dict[str, Any]:
    for name, value in new.items():
        grows = key == "function" and name == "name" and old.get(name) != value
        old[name] = merge(old.get(name), value, "" if grows else name)
    return old


def _merge_lists(old: list[Any], new: list[Any], key: str) -> list[Any]:
    same = {"annotations": _never, "reasoning_details": _same_detail}.get(key, _same_index)
    for item in new:
        if not isinstance(item, dict):
            old.append(item)
            continue
        earlier = next((each for each in old if isinstance(each, dict) and same(each, item)), None)
        if earlier is None:
            old.append(merge(None, item))
        else:
            _merge_objects(earlier, item)
    return old


def _never(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return False


def _same_index(old: dict[str, Any], new: dict[str, Any]) -> bool:
    index = new.get("index")
    return index is not None and old.get("index") == index


def _same_detail(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether two details are one: of one type and index, and not of two ids."""
    if any(old.get(name) != new.get(name) for name in ("type", "index")):
        return False
    ids = {each["id"] for each in (old, new) if isinstance(each.get("id"), str)}
    return len(ids) < 2
