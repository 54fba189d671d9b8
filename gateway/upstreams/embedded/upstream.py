"""The embedded engine as a upstream: started with the gateway, then talked to as any other upstream."""

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
    """An `HTTPUpstream` that owns its engine, and tells its adapters from its model.

    llama.cpp serves one model and lists one name; which adapter is on top of it a request says by numbers
    (`lora`). Here each adapter is a model, as in vLLM, and the base is one too.
    """

    def __init__(self, engine: EmbeddedEngine, *, idle_timeout: float = 600.0) -> None:
        super().__init__("", idle_timeout=idle_timeout)
        self._owned = engine
        self._own_name = engine.served_name
        self._cards: tuple[Mapping[str, ModelCard] | None, Mapping[str, ModelCard]] = None, {}

    async def start(self) -> None:
        """Starts the engine (fetching its model the first time) and connects to it."""
        await self._owned.start()
        self.connect_to(self._owned.base_url, self._owned.api_key)
        await super().start()

    async def close(self) -> None:
        """Disconnects and stops the engine."""
        await super().close()
        await self._owned.close()

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """The adapters, first the one that is asked where no model is named, and the base model."""
        listed, base = await super().models(refresh=refresh), self._owned.model_name
        if self._cards[0] is not listed:  # a model's card stays the same for as long as the engine's does
            cards = {
                name: replace(card, name=name, base=base, raw=_listed(card, name, base))
                for card in listed.values()
                for name in (*self._owned.adapter_names, base)
            }
            self._cards = listed, cards
        return self._cards[1]

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """See `Upstream`; the reply names the model that was asked, not what llama.cpp calls itself."""
        asked = plan.body.get("model") or self._own_name
        async with aclosing(super().stream(plan)) as chunks:
            async for chunk in chunks:
                if "model" in chunk.raw:
                    chunk.raw = {**chunk.raw, "model": asked}
                yield chunk

    async def relay(self, endpoint: Endpoint, payload: bytes) -> AsyncGenerator[bytes, None]:
        """See `Upstream`; only the model's name is put right."""
        asked = orjson.loads(payload).get("model") or self._own_name
        own, named = (b'"model":' + orjson.dumps(name) for name in (self._own_name, asked))
        rest = b""
        async with aclosing(super().relay(endpoint, payload)) as blocks:
            async for block in blocks:
                *lines, rest = (rest + block).split(b"\n")
                if lines:
                    yield b"\n".join((*lines, b"")).replace(own, named)
        if rest:
            yield rest.replace(own, named)

    @asynccontextmanager
    async def _open(
        self, url: str, body: Mapping[str, Any] | bytes | None, *, method: str = "POST"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if url.endswith("completions") and body is not None:
            asked = orjson.loads(body) if isinstance(body, bytes) else body
            body = {**asked, "lora": self._scales(asked.get("model") or self._own_name)}
        async with super()._open(url, body, method=method) as response:
            yield response

    def _scales(self, model: object) -> list[dict[str, float]]:
        """llama.cpp's word for a model: which adapters are on (1) and off (0).

        Raises UpstreamError for a name that is not served, which llama.cpp itself would not notice: a
        scorer's model is named by the settings alone.
        """
        names, base = self._owned.adapter_names, self._owned.model_name
        if model not in (*names, base):
            served = ", ".join((*names, base))
            raise UpstreamError(
                404,
                f"The embedded engine serves no model {model!r}; it serves {served}.",
                {"param": "model", "code": "model_not_found"},
            )
        return [{"id": place, "scale": float(name == model)} for place, name in enumerate(names)]


def _listed(card: ModelCard, name: str, base: str) -> dict[str, Any]:
    """A model's entry in the list; an adapter names its parent, as vLLM's do."""
    return {**card.raw, "id": name, **({} if name == base else {"parent": base})}
