"""The evaluation's side of the wire: one question at one setting, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from training.evaluation.settings import EvaluationSetting

__all__ = ["Client", "RequestFailed", "open_client"]

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_WAITS = (0.5, 2.0, 8.0)
"""Seconds before each further try of a request whose failure may pass."""


class RequestFailed(Exception):
    """No reply was to be had; the message says why."""


class Client:
    """Asks one gateway. `waits` are the pauses before further tries, in seconds."""

    def __init__(self, http: aiohttp.ClientSession, url: str, waits: Sequence[float] = _WAITS) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._waits = waits

    async def served_model(self) -> str:
        """The first model that the gateway lists. Raises RequestFailed."""
        listed = (await self._json("GET", "/models")).get("data")
        if not isinstance(listed, list) or not listed:
            raise RequestFailed(f"{self._url} serves no model")
        return str(listed[0]["id"])

    async def ask(self, setting: EvaluationSetting, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """The chat completion at this setting, and how long it took in seconds. Raises RequestFailed."""
        began = time.monotonic()
        reply = await self._json("POST", "/chat/completions", json=body, headers=setting.headers)
        if "scaling" not in reply:
            raise RequestFailed(f"{self._url} is no ThinkGate: its reply does not say what was done")
        return reply, time.monotonic() - began

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the gateway answers to any other request; `path` is below /v1. Raises RequestFailed."""
        return await self._json("POST", path, json=body)

    async def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        for wait in (*self._waits, None):
            try:
                async with self._http.request(method, self._url + path, **request) as response:
                    if response.status < 400:
                        return _object(await response.json(content_type=None))
                    failure = RequestFailed(f"{response.status}: {_message(await response.text())}")
                    if response.status not in _PASSING:
                        raise failure
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failure = RequestFailed(f"{self._url} does not answer ({error or type(error).__name__})")
            if wait is not None:
                await asyncio.sleep(wait)
        raise failure


@asynccontextmanager
async def open_client(
    url: str, seconds: float, waits: Sequence[float] = _WAITS, *, key: str | None = None
) -> AsyncIterator[Client]:
    """A client of the gateway at `url`, which ends in /v1; `seconds` is the most that one request may take.

    The key, or else the one in the environment's THINKGATE_KEY, goes along.
    """
    key = key or os.environ.get("THINKGATE_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limit = aiohttp.ClientTimeout(total=seconds)
    async with aiohttp.ClientSession(headers=headers, timeout=limit) as http:
        yield Client(http, url, waits)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _message(text: str) -> str:
    """The message of an OpenAI error, or the reply's beginning."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
