"""The embedded engine as an upstream: it starts with the gateway and then works like any other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from gateway.errors import UpstreamError
from gateway.upstreams.base import Chunk, Endpoint, ModelCard, UpstreamLimits, UpstreamRequest
from gateway.upstreams.client import Body, HTTPUpstream
from gateway.upstreams.embedded.engine import EmbeddedEngine, EngineFailed
from gateway.upstreams.embedded.model_store import ModelUnavailable

__all__ = ["EmbeddedUpstream"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
"""Seconds before an engine that has ended is started again: at first, and after many failures."""
_STABLE_SECONDS = 60.0
"""Seconds after which an engine that runs counts as recovered."""


class EmbeddedUpstream(HTTPUpstream):
    """An `HTTPUpstream` that owns its engine and lists each adapter as a model.

    llama.cpp serves one model and lists one name; a request chooses the adapter by number (`lora`).
    Here each adapter is a model, as in vLLM, and so is the base.
    """

    def __init__(self, engine: EmbeddedEngine, *, limits: UpstreamLimits | None = None) -> None:
        super().__init__("", limits=limits)
        self._owned = engine
        self._restarts = 0
        self._keeper: asyncio.Task[None] | None = None
        self._engine_name = engine.served_name
        self._cards: tuple[Mapping[str, ModelCard] | None, Mapping[str, ModelCard]] = None, {}

    async def start(self) -> None:
        """Start the engine, which fetches its model the first time, and connect to it."""
        await self._owned.start()
        self.connect_to(self._owned.base_url, self._owned.api_key)
        await super().start()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_running())

    async def close(self) -> None:
        """Disconnect and stop the engine."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        await super().close()
        await self._owned.close()

    def notices(self) -> Mapping[str, Any]:
        """Return how often the engine was started again, once that has happened or is due."""
        running = self._owned.pid is not None
        if self._keeper is None or (running and not self._restarts):
            return {}
        return {"embedded_engine": {"restarts": self._restarts, "running": running}}

    async def _keep_running(self) -> None:
        """Start the engine again whenever it has ended; wait longer after each failure in a row."""
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            await self._owned.wait()
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            _log.warning("The embedded engine has ended; it starts again in %g s.", pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await self._owned.start()
            except (EngineFailed, ModelUnavailable, OSError) as error:
                _log.error("%s", error)
            else:
                self._restarts += 1

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

    async def relay(
        self,
        endpoint: Endpoint,
        payload: bytes,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Relay as `Upstream` says. Only the model's name changes."""
        model = orjson.loads(payload).get("model") or self._engine_name
        engine_field, model_field = (b'"model":' + orjson.dumps(name) for name in (self._engine_name, model))
        rest = b""
        async with aclosing(super().relay(endpoint, payload, on_headers)) as blocks:
            async for block in blocks:
                *lines, rest = (rest + block).split(b"\n")
                if lines:
                    yield b"\n".join((*lines, b"")).replace(engine_field, model_field)
        if rest:
            yield rest.replace(engine_field, model_field)

    def _payload(self, url: str, body: Body) -> bytes | None:
        """Return a request's bytes; one that generates also chooses its adapter."""
        if url.endswith("completions") and body is not None:
            fields = orjson.loads(body) if isinstance(body, bytes) else body
            body = {**fields, "lora": self._scales(fields.get("model") or self._engine_name)}
        return super()._payload(url, body)

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
