"""Tests in one process, the code under test in another, and plain values between them.

The code is not trusted. In the tests' own process it could end the process with success, patch assertions,
read the expected values, or return objects that equal everything. Here it sees only the arguments of its
calls, and its results become plain data before they are compared.

Values cross as JSON: None, booleans, numbers, text, bytes, and lists, tuples, sets and dicts of them. Other
objects stay where they are, and the tests hold a `Remote` in their place.

Standard library alone: this runs inside the sandbox.
"""

from __future__ import annotations

import builtins
import json
import socket
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

__all__ = ["Channel", "Remote", "examine", "serve"]

MAX_MESSAGE = 1 << 20  # bytes; a longer message ends the run
_WIDE = 1 << 63  # from here on integers cross in hexadecimal, which has no limit on digits


class BrokenCode(Exception):
    """The code has ended, or has sent a message that honest code never sends."""


class Channel:
    """Lines of JSON over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile("rb")

    def send(self, message: Any) -> None:
        """Send a message. Raises OSError where nobody listens any more."""
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Return the next message. Raises BrokenCode where none can be read."""
        try:
            line = self._lines.readline(MAX_MESSAGE)
        except OSError as error:
            raise BrokenCode("the code has ended") from error
        if not line:
            raise BrokenCode("the code has ended")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BrokenCode("the code returned too much, or nothing that can be read") from error


def encode(value: Any, keep: Callable[[Any], list[Any]]) -> Any:
    """Return a value as JSON; `keep` returns JSON for an object that can't cross."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _WIDE else ["int", hex(value)]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", *([encode(key, keep), encode(item, keep)] for key, item in value.items())]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, *(encode(item, keep) for item in value)]
    return keep(value)


def decode(data: Any, find: Callable[[Any], Any]) -> Any:
    """Return the value that `encode` made JSON of; `find` undoes `keep`. Bad JSON raises any exception."""
    if not isinstance(data, list):
        return data
    kind, *items = data
    if kind == "int":
        return int(items[0], 16)
    if kind == "complex":
        return complex(*items)
    if kind == "bytes":
        return bytes.fromhex(items[0])
    if kind == "dict":
        return {decode(key, find): decode(item, find) for key, item in items}
    if kind in {"list", "tuple", "set", "frozenset"}:
        return getattr(builtins, kind)(decode(item, find) for item in items)
    return find(data)


# The side of the code.


def serve(channel: Channel) -> None:
    """Receive the code, run it, and then answer calls until the other side has gone."""
    module = ModuleType("solution")
    objects: list[Any] = []

    def keep(value: Any) -> list[Any]:
        objects.append(value)
        return ["object", len(objects) - 1]

    def find(reference: list[Any]) -> Any:
        return objects[reference[1]]

    def reply(work: Callable[[], Any]) -> None:
        try:
            message = {"value": work()}
        except StopIteration:
            message = {"raised": "StopIteration", "text": ""}
        except Exception as error:  # noqa: BLE001  # the tests decide about any error of the code
            message = {"raised": type(error).__name__, "text": str(error)[:500]}
        channel.send(message)

    def load() -> Any:
        exec(compile(channel.receive(), "solution", "exec"), module.__dict__)
        names = [name for name in module.__dict__ if not name.startswith("__")]
        return [[name, encode(module.__dict__[name], keep)] for name in names]

    def act() -> Any:
        act, target, *rest = channel.receive()
        target, rest = decode(target, find), [decode(argument, find) for argument in rest]
        result = _ACTS[act](target, *rest)
        # The call may have changed its arguments in place.
        return [encode(result, keep), encode(rest[0] if act == "call" else [], keep)]

    reply(load)
    while True:
        reply(act)


_ACTS: dict[str, Callable[..., Any]] = {
    "call": lambda target, args, kwargs: target(*args, **kwargs),
    "attribute": getattr,
    "item": lambda target, key: target[key],
    "set": lambda target, key, value: target.__setitem__(key, value),
    "length": len,
    "text": str,
    "iterate": iter,
    "next": next,
}


# The side of the tests.


class Remote:
    """An object of the code, as the tests hold it: they can call it, iterate it and read its attributes.

    It has no truth value and no order, and equals only itself: otherwise the code would decide the verdict.
    """

    __slots__ = ("_ask", "_reference")
    __hash__ = object.__hash__

    def __init__(self, ask: Callable[..., Any], reference: list[Any]) -> None:
        self._ask = ask
        self._reference = reference

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the code's object: return its result or raise its exception."""
        return self._ask("call", self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("attribute", self, name)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("set", self, key, value)

    def __len__(self) -> int:
        return int(self._ask("length", self))

    def __str__(self) -> str:
        return str(self._ask("text", self))

    def __iter__(self) -> Iterator[Any]:
        items = self._ask("iterate", self)
        while True:
            try:
                item = items._ask("next", items)
            except StopIteration:
                return
            yield item

    def __next__(self) -> Any:
        return self._ask("next", self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._reference == other._reference

    def __bool__(self) -> bool:
        raise TypeError("the code returned an object where a value is expected")

    def __contains__(self, item: object) -> bool:
        raise TypeError("the code returned an object where a collection is expected")


def examine(channel: Channel, code: str, tests: str) -> tuple[bool, str]:
    """Send the code, and run the tests on it: (whether they passed, else why not)."""

    def keep(value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return value._reference
        raise TypeError(f"tests can hand plain values to the code only, not {type(value).__name__}")

    def find(reference: Any) -> Remote:
        if not (len(reference) == 2 and reference[0] == "object" and isinstance(reference[1], int)):
            raise BrokenCode("the code sent something that is no value")
        return Remote(ask, reference)

    def receive_result(act: str) -> Any:
        message = channel.receive()
        if not isinstance(message, dict):
            raise BrokenCode("the code sent something that is no reply")
        if "raised" in message:
            raise _error_from(str(message["raised"]), str(message.get("text", "")), act)
        return message.get("value")

    def ask(act: str, target: Remote, *rest: Any) -> Any:
        channel.send([act, target._reference, *(encode(argument, keep) for argument in rest)])
        result, changed = receive_result(act)
        # Only where it returns nothing; else code meets `assert order(xs) == sorted(xs)` by emptying xs.
        if act == "call" and result is None:
            for argument, after in zip(rest[0], decode(changed, find), strict=True):
                _update(argument, after)
        return decode(result, find)

    try:
        channel.send(code)
        names = {name: decode(value, find) for name, value in receive_result("load") if _may_be_named(name)}
        exec(compile(tests, "tests", "exec"), {"__name__": "tests", **names})
    except SystemExit:
        return False, "the tests ended before they were through"
    except (BrokenCode, OSError) as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  # a failed assertion, an error of the code's, or bad data
        return False, f"{type(error).__name__}: {error}"[:500]
    return True, ""


def _may_be_named(name: str) -> bool:
    """Whether the code may give this name to the tests.

    Names of built-ins stay Python's own, because tests call `len` and `all` on the results. So does
    `__builtins__`, where Python looks for them.
    """
    return not name.startswith("__") and not hasattr(builtins, name)


def _error_from(name: str, text: str, act: str) -> Exception:
    """Return what the code raised: a built-in exception of that name, or BrokenCode.

    The end of an iteration counts only after a request for the next item. Raised by a call, it would end a
    loop of the tests, as in `all(map(check, cases))`.
    """
    kind = getattr(builtins, name, None)
    ends = name in {"StopIteration", "StopAsyncIteration"}
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or (ends and act != "next"):
        return BrokenCode(f"{name}: {text}")
    try:
        return kind(text)
    except TypeError:  # some take more than a text
        return BrokenCode(f"{name}: {text}")


def _update(argument: Any, after: Any) -> None:
    """Change a list, dict or set as the code changed its copy."""
    if type(argument) is not type(after) or argument == after:
        return
    if isinstance(argument, list):
        argument[:] = after
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(after)
