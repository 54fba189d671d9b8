"""The evaluation's HTTP client: one chat request at one setting."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import stamina

from training.evaluation.settings import EvaluationSetting

__all__ = ["Client", "RequestFailed", "open_client"]

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class RequestFailed(Exception):
    """The gateway gave no usable reply; the message says why."""


class _TransientFailure(RequestFailed):
    """A failure that a retry may cure."""


class Client:
    """Sends requests to one gateway.

    A request whose failure may pass is retried three times, after about 0.5, 2 and 8 seconds.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._retry = stamina.AsyncRetryingCaller(
            attempts=4, timeout=None, wait_initial=0.5, wait_max=8.0, wait_exp_base=4, wait_jitter=0.5
        ).on(_TransientFailure)

    async def served_model(self) -> str:
        """Return the first model that the gateway lists. Raises RequestFailed."""
        models = (await self._request("GET", "/models")).get("data")
        if not isinstance(models, list) or not models:
            raise RequestFailed(f"{self._url} serves no model")
        return str(models[0]["id"])

    async def complete(
        self, setting: EvaluationSetting, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], float]:
        """Return the chat completion at this setting, and its duration in seconds. Raises RequestFailed."""
        start = time.monotonic()
        reply = await self._request("POST", "/chat/completions", json=body, headers=setting.headers)
        if "scaling" not in reply:
            raise RequestFailed(f"{self._url} is not a ThinkGate gateway: its reply has no `scaling` field")
        return reply, time.monotonic() - start

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to any other POST request; `path` is below /v1. Raises RequestFailed."""
        return await self._request("POST", path, json=body)

    async def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return await self._retry(self._request_once, method, path, **options)

    async def _request_once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            async with self._http.request(method, self._url + path, **options) as response:
                if response.status < 400:
                    return _json_object(await response.json(content_type=None))
                message = f"{response.status}: {_error_message(await response.text())}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = error or type(error).__name__
            raise _TransientFailure(f"{self._url} does not answer ({reason})") from error
        raise (_TransientFailure if response.status in _TRANSIENT_STATUSES else RequestFailed)(message)


@asynccontextmanager
async def open_client(url: str, seconds: float, *, key: str | None = None) -> AsyncIterator[Client]:
    """Open a client of the gateway at `url`, which ends in /v1; an attempt may take so many seconds.

    The client sends `key`, or else the key in the environment variable THINKGATE_KEY.
    """
    key = key or os.environ.get("THINKGATE_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limit = aiohttp.ClientTimeout(total=seconds)
    async with aiohttp.ClientSession(headers=headers, timeout=limit) as http:
        yield Client(http, url)


def _json_object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _error_message(text: str) -> str:
    """Return the message of an OpenAI error, or else the start of the text."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
