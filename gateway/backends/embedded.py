"""The embedded engine as a backend: started with the gateway, then talked to as any other upstream."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import aiohttp

from gateway.backends.base import Plan, Response
from gateway.backends.local import EmbeddedEngine
from gateway.backends.openai import OpenAIBackend
from gateway.merging import merge

__all__ = ["EmbeddedBackend"]


class EmbeddedBackend(OpenAIBackend):
    """An `OpenAIBackend` that owns its engine, and knows two manners of llama.cpp's server."""

    def __init__(self, engine: EmbeddedEngine, *, idle_timeout: float = 600.0) -> None:
        super().__init__("", idle_timeout=idle_timeout)
        self._owned = engine

    async def start(self) -> None:
        """Starts the engine (fetching its model the first time) and connects to it."""
        await self._owned.start()
        self.connect_to(self._owned.base_url, self._owned.api_key)
        await super().start()

    async def close(self) -> None:
        """Disconnects and stops the engine."""
        await super().close()
        await self._owned.close()

    async def complete(self, plan: Plan) -> Response:
        """One reply, streamed and put together: only a streamed request ends when its client hangs up."""
        envelope: dict[str, Any] = {}
        choices: dict[int, dict[str, Any]] = {}
        usage: dict[str, Any] = {}
        async with aclosing(self.stream(plan)) as chunks:
            async for chunk in chunks:
                envelope |= {
                    key: value for key, value in chunk.raw.items() if key not in ("choices", "usage")
                }
                if chunk.index is not None:
                    choices[chunk.index] = merge(choices.get(chunk.index), chunk.choice)
                if chunk.usage is not None:  # comes once for each choice, the prompt in each
                    completion = usage.get("completion_tokens", 0) + chunk.usage["completion_tokens"]
                    usage = {**chunk.usage, "completion_tokens": completion}
                    usage["total_tokens"] = usage["prompt_tokens"] + completion
        replies = [
            {**{key: value for key, value in choice.items() if key != "delta"}, "message": choice["delta"]}
            for _, choice in sorted(choices.items())
        ]
        return Response({**envelope, "object": "chat.completion", "choices": replies, "usage": usage})

    def _connector(self) -> aiohttp.TCPConnector:
        # After a streamed reply the server may close the connection that it promised to keep.
        return aiohttp.TCPConnector(limit=0, force_close=True)
