"""The embedded engine as a backend: started with the gateway, then talked to as any other upstream."""

from __future__ import annotations

from gateway.backends.local import EmbeddedEngine
from gateway.backends.openai import OpenAIBackend

__all__ = ["EmbeddedBackend"]


class EmbeddedBackend(OpenAIBackend):
    """An `OpenAIBackend` that owns its engine."""

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
