"""The embedded engine as an upstream: it starts with the gateway and then works like any other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from gateway.errors import UpstreamError
from gateway.upstreams.base import Chunk, Endpoint, ModelCard, UpstreamRequest
from gateway.upstreams.client import HTTPUpstream
from gateway.upstreams.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedUpstream"]


class EmbeddedUpstream(HTTPUpstream):
    """An `HTTPUpstream` that owns its engine and lists each adapter as a model.

    llama.cpp serves one model and lists one name; a request chooses the adapter by number (`lora`).
    Here each adapter is a model, as in vLLM, and so is the base.
    """

    def __init__(self, engine: EmbeddedEngine, *, idle_timeout: float = 600.0) -> None:
        super().__init__("", idle_timeout=idle_timeout)
        self._owned = engine
        self._engine_name = engine.served_name
        self._cards: tuple[Mapping[str, ModelCard] | None, Mapping[str, ModelCard]] = None, {}

    async def start(self) -> None:
        """Start the engine, which fetches its model the first time, and connect to it."""
        await self._owned.start()
        self.connect_to(self._owned.base_url, self._owned.api_key)
        await super().start()

    async def close(self) -> None:
        """Disconnect and stop the engine."""
        await super().close()
        await self._owned.close()

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """Return the adapters and the base model; a request that names no model gets the first."""
        engine_cards, base = await super().models(refresh=refresh), self._owned.model_name
        if self._cards[0] is not engine_cards:  # a card lives as long as the engine's own
            cards = {
                name: replace(card, name=name, base=base, raw=_entry(card, name, base))
                for card in engine_cards.values()
                for name in (*self._owned.adapter_names, base)
            }
            self._cards = engine_cards, cards
        return self._cards[1]

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Stream as `Upstream` says. The reply names the requested model, not llama.cpp's own name."""
        model = plan.body.get("model") or self._engine_name
        async with aclosing(super().stream(plan)) as chunks:
            async for chunk in chunks:
                if "model" in chunk.event:
                    chunk.event = {**chunk.event, "model": model}
                yield chunk

    async def relay(self, endpoint: Endpoint, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Relay as `Upstream` says. Only the model's name changes."""
        model = orjson.loads(payload).get("model") or self._engine_name
        engine_field, model_field = (b'"model":' + orjson.dumps(name) for name in (self._engine_name, model))
        rest = b""
        async with aclosing(super().relay(endpoint, payload)) as blocks:
            async for block in blocks:
                *lines, rest = (rest + block).split(b"\n")
                if lines:
                    yield b"\n".join((*lines, b"")).replace(engine_field, model_field)
        if rest:
            yield rest.replace(engine_field, model_field)

    @asynccontextmanager
    async def _open(
        self, url: str, body: Mapping[str, Any] | bytes | None, *, method: str = "POST"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if url.endswith("completions") and body is not None:
            fields = orjson.loads(body) if isinstance(body, bytes) else body
            body = {**fields, "lora": self._scales(fields.get("model") or self._engine_name)}
        async with super()._open(url, body, method=method) as response:
            yield response

    def _scales(self, model: object) -> list[dict[str, float]]:
        """Return a model as llama.cpp's `lora` field names it: which adapters are on (1) and off (0).

        Raises `UpstreamError` for a name that is not served. llama.cpp itself would not notice, and
        nothing else checks the model that a scorer's settings name.
        """
        names, base = self._owned.adapter_names, self._owned.model_name
        if model not in (*names, base):
            served = ", ".join((*names, base))
            raise UpstreamError(
                404,
                f"The embedded engine serves no model {model!r}; it serves {served}.",
                {"param": "model", "code": "model_not_found"},
            )
        return [{"id": index, "scale": float(name == model)} for index, name in enumerate(names)]


def _entry(card: ModelCard, name: str, base: str) -> dict[str, Any]:
    """Return a model's entry in the list; an adapter names its parent, as in vLLM."""
    return {**card.raw, "id": name, **({} if name == base else {"parent": base})}
