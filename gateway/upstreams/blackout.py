"""Blacks out the gateway's own upstream key in what an upstream sends."""

from __future__ import annotations

import json

import orjson

__all__ = ["KeyBlackout"]

_MARK = "[upstream key]"
_SHORTEST_SECRET = 8
"""Shorter keys are placeholders ("none", "EMPTY"), and words that replies may hold."""


class KeyBlackout:
    """Replaces one key, however JSON writes it. A key of under 8 characters is no secret and stays."""

    __slots__ = ("_key", "_spellings")

    def __init__(self, key: str | None) -> None:
        self._key = key if key and len(key) >= _SHORTEST_SECRET else ""
        spellings: set[bytes] = set()
        if self._key:
            quoted = json.dumps(self._key)[1:-1]
            texts = {self._key, quoted, quoted.replace("/", "\\/"), orjson.dumps(self._key).decode()[1:-1]}
            spellings = {text.encode() for text in texts}
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))

    @property
    def hides(self) -> bool:
        """Whether there is anything to black out."""
        return bool(self._key)

    def text(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self._key, _MARK) if self._key else text

    def payload(self, payload: bytes) -> bytes:
        """Return bytes without the key. JSON that escapes letters of the key is written anew."""
        if not self._key:
            return payload
        for spelling in self._spellings:
            if spelling in payload:
                payload = payload.replace(spelling, _MARK.encode())
        return self._unescaped(payload) if b"\\u00" in payload else payload

    def _unescaped(self, payload: bytes) -> bytes:
        try:
            plain = orjson.dumps(orjson.loads(payload))
        except (orjson.JSONDecodeError, TypeError):
            return payload
        for spelling in self._spellings:
            if spelling in plain:
                return plain.replace(spelling, _MARK.encode())
        return payload
