"""Tool calls as engines stream them, each with an index of its own.

Engines differ. Ollama gives parallel calls one index; others give none. Some send the name with every
fragment, or split it. Some send a new id with every fragment, or none at all. Some repeat the finished call,
or send the arguments as an object.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["Malformed", "ToolCallReader", "check_tool_calls"]

_HARMONY = "<|"
"""The beginning of harmony's tags, which some parsers leave in a tool's name."""


class Malformed(ValueError):
    """A part of a choice has a wrong type; the message says which."""


@dataclass(slots=True)
class _Call:
    """One call of a stream so far. `shown` is the id that the client has, from the first fragment on."""

    index: int
    id: str | None = None
    shown: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the arguments so far."""
        if len(self.arguments) > 1:
            self.arguments = ["".join(self.arguments)]
        return self.arguments[0] if self.arguments else ""

    def complete(self) -> bool:
        """Tell whether the arguments so far are a whole JSON object."""
        return _is_object(self.text())


class ToolCallReader:
    """Reads the tool calls of one streamed choice.

    A new id is a new call. A fragment without id belongs to the call at its index, or to the last call where
    it has no index, unless that call is complete and the fragment begins another one. So does one with a new
    id that has no name, while the call isn't complete. Each part of a name comes out once, so that the parts
    together are the name. A call without an id gets one.
    """

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}  # by the index that the client sees
        self._by_index: dict[int, _Call] = {}  # by the engine's index: the last call there
        self._by_id: dict[str, _Call] = {}

    def read(self, fragments: object) -> list[dict[str, Any]]:
        """Return a delta's fragments; each that is regular is the engine's own. Raises `Malformed`."""
        read = []
        for fragment in _objects(fragments):
            function = _function(fragment)
            name, arguments = _name(function), _arguments(function)
            call_id, index = _id(fragment), _index(fragment)
            if call_id is None and not name and not arguments and not self._calls:
                continue  # an empty fragment begins no call
            call = self._call(call_id, index, name, arguments)
            if call is None:
                continue
            if name:
                name = "" if call.arguments else name.removeprefix(call.name)
                call.name += name
            if arguments:
                call.arguments.append(arguments)
            shown = call.shown if call_id == call.shown else None
            if call.shown is None:
                shown = call.shown = call.id or _new_id()
            read.append(_written(fragment, call.index, shown, name, arguments))
        return read

    def _call(self, call_id: str | None, index: int | None, name: str, arguments: str) -> _Call | None:
        """Return the call that a fragment belongs to; None for one that repeats a finished call."""
        here = None
        if index is not None:
            here = self._by_index.get(index)
        elif self._calls:
            here = next(reversed(self._calls.values()))
        if call_id is not None:
            known = self._by_id.get(call_id)
            if known is None and here is not None and _continues(here, name, arguments):
                known = here
            if known is None or (index is not None and here is None and name and known.complete()):
                return self._new(call_id, index)
            here = known
            here.id = call_id
            self._by_id[call_id] = here
            return None if _repeats(here, name, arguments) else here
        if here is None and not name and self._calls:
            here = next(reversed(self._calls.values()))
        if here is None:
            return self._new(None, index)
        if _repeats(here, name, arguments):
            return None
        return self._new(None, index) if _begins(here, name, arguments) else here

    def _new(self, call_id: str | None, index: int | None) -> _Call:
        free = index is not None and index not in self._calls
        own = index if index is not None and free else max(self._calls, default=-1) + 1
        if call_id in self._by_id:
            call_id = f"{call_id}_{own}"
        call = self._calls[own] = _Call(own, call_id)
        self._by_index[own if index is None else index] = call
        if call_id is not None:
            self._by_id[call_id] = call
        return call


def check_tool_calls(calls: object) -> list[dict[str, Any]]:
    """Return a whole reply's tool calls, with ids and indices that differ. Raises `Malformed`.

    Each that is regular is the engine's own; one that repeats another, or is empty, is left out.
    """
    checked: list[dict[str, Any]] = []
    seen: dict[str, tuple[str, str]] = {}
    indices: set[int] = set()
    for fragment in _objects(calls):
        function = _function(fragment)
        name, arguments, call_id = _name(function), _arguments(function), _id(fragment)
        if call_id is None and not name and not arguments:
            continue
        call_id = call_id or _new_id()
        if seen.get(call_id) == (name, arguments):
            continue
        if call_id in seen:
            call_id = f"{call_id}_{len(checked)}"
        seen[call_id] = (name, arguments)
        index = None
        if "index" in fragment:
            own = _index(fragment)
            index = max(indices, default=-1) + 1 if own is None or own in indices else own
            indices.add(index)
        checked.append(_written(fragment, index, call_id, name, arguments))
    return checked


def _written(
    fragment: dict[str, Any], index: int | None, call_id: str | None, name: str, arguments: str
) -> dict[str, Any]:
    """Return a fragment as the client gets it: the engine's own where that is regular."""
    function = fragment.get("function")
    placed = index is None if "index" not in fragment else _is_index(fragment["index"], index)
    if placed and fragment.get("id") == call_id and _is_regular(fragment, name):
        return fragment
    rest = {key: value for key, value in fragment.items() if key not in ("index", "id", "type", "function")}
    others = {key: value for key, value in (function or {}).items() if key not in ("name", "arguments")}
    written: dict[str, Any] = {} if index is None else {"index": index}
    if call_id is not None:
        written["id"] = call_id
    if isinstance(fragment.get("type"), str):
        written["type"] = fragment["type"]
    names = {"name": name} if name else {}
    return {**written, **rest, "function": {**names, **others, "arguments": arguments}}


def _is_regular(fragment: Mapping[str, Any], name: str) -> bool:
    """Tell whether type and function of a fragment are as OpenAI's reference has them."""
    function = fragment.get("function")
    return (
        isinstance(fragment.get("type", ""), str)
        and isinstance(function, dict)
        and ("name" not in function or (name != "" and function["name"] == name))
        and isinstance(function.get("arguments", ""), str)
    )


def _is_index(value: object, index: int | None) -> bool:
    return type(value) is int and value == index


def _continues(call: _Call, name: str, arguments: str) -> bool:
    """Tell whether a fragment with a new id belongs to this call: its id comes late, or changes."""
    if call.id is None:
        return not _begins(call, name, arguments)
    return not name and not call.complete()


def _begins(call: _Call, name: str, arguments: str) -> bool:
    """Tell whether a fragment without a new id begins another call, because this one is complete."""
    if not name or not call.name or not call.complete():
        return False
    return name != call.name or _is_object(arguments)


def _repeats(call: _Call, name: str, arguments: str) -> bool:
    """Tell whether a fragment repeats a finished call."""
    return (not name or name == call.name) and arguments == call.text() and _is_object(arguments)


def _is_object(text: str) -> bool:
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _objects(fragments: object) -> list[dict[str, Any]]:
    if isinstance(fragments, dict) and "function" in fragments:
        return [fragments]
    if not isinstance(fragments, list):
        raise Malformed("its tool_calls are no list")
    objects = [fragment for fragment in fragments if fragment is not None and fragment != {}]
    if not all(isinstance(fragment, dict) for fragment in objects):
        raise Malformed("a tool call is no object")
    return objects


def _function(fragment: Mapping[str, Any]) -> Mapping[str, Any]:
    function = fragment.get("function")
    if function is None:
        return {}
    if not isinstance(function, dict):
        raise Malformed("a tool call's function is no object")
    return function


def _name(function: Mapping[str, Any]) -> str:
    name = function.get("name")
    if name is None:
        return ""
    if not isinstance(name, str):
        raise Malformed("a tool's name is no string")
    return name.partition(_HARMONY)[0].removeprefix("functions.").strip() if _HARMONY in name else name


def _arguments(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments")
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


def _id(fragment: Mapping[str, Any]) -> str | None:
    call_id = fragment.get("id")
    if call_id is None or call_id == "":
        return None
    if isinstance(call_id, str):
        return call_id
    if type(call_id) is int:
        return str(call_id)
    raise Malformed("a tool call's id is no string")


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex}"


def _index(fragment: Mapping[str, Any]) -> int | None:
    index = fragment.get("index")
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 5:
        index = int(index)
    return index if type(index) is int and 0 <= index < 10_000 else None
