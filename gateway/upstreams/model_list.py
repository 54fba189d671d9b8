"""The models of one upstream: remembered, and listed anew by one probe at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.adapters import EngineAdapter, adapter_for
from gateway.upstreams.base import ModelCard
from gateway.upstreams.checks import json_object

__all__ = ["ModelList", "read_models"]

_PROBE_SECONDS = 1.5
"""A probe's own limit: a list that hangs must not hide for long that the upstream is back."""
_PATIENCE = 0.25
"""Seconds to wait for a probe where an earlier list can stand in."""
_RECENT = 30.0
"""Seconds for which a busy upstream counts as healthy after its last answer."""
_EMPTY_SECONDS = 5.0
"""Seconds for which an upstream without a list isn't asked for one again."""


class ModelList:
    """Lists an upstream's models by `fetch`; what it raises must be an `UpstreamError`."""

    def __init__(self, fetch: Callable[[], Awaitable[Mapping[str, ModelCard]]]) -> None:
        self._fetch = fetch
        self._cards: Mapping[str, ModelCard] | None = None  # None: not listed yet
        self._error: UpstreamError | None = None  # of the last probe
        self._probe: asyncio.Task[None] | None = None
        self._probed_at = self._answered_at = float("-inf")

    def answered(self) -> None:
        """Note that the upstream has just answered some request."""
        self._answered_at = time.monotonic()

    async def cards(self, *, refresh: bool) -> Mapping[str, ModelCard]:
        """Return the models by name; with `refresh` those of a new probe, if it answers soon.

        An earlier list stands in for one that fails or is slow. Where there is none, an upstream that only
        refuses its list has no names, and may still answer a request. Raises `UpstreamError` where it is
        away, and with `refresh` for any failure.
        """
        if not refresh and self._cards is not None:
            if not self._cards and self._age() > _EMPTY_SECONDS:
                self._start_probe()
            return self._cards
        if not refresh and _hangs(self._error) and self._age() < _EMPTY_SECONDS:
            self._start_probe()
            return {}
        await self._probed(None if self._cards is None else _PATIENCE)
        if self._cards is not None:
            return self._cards
        if self._error is not None and (refresh or _away(self._error)):
            raise self._error
        return {}

    async def healthy(self) -> bool:
        """Tell whether the upstream answers. One that is slow does, if it has answered lately."""
        recent = time.monotonic() - self._answered_at < _RECENT
        done = await self._probed(_PATIENCE if recent else None)
        return recent if not done or _hangs(self._error) else self._error is None

    async def close(self) -> None:
        """Stop a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})

    def _age(self) -> float:
        return time.monotonic() - self._probed_at

    def _start_probe(self) -> asyncio.Task[None]:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._run_probe())
        return self._probe

    async def _probed(self, seconds: float | None) -> bool:
        """Wait for the probe under way, or a new one; return whether it has ended."""
        done, _ = await asyncio.wait({self._start_probe()}, timeout=seconds)
        return bool(done)

    async def _run_probe(self) -> None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                self._cards = await self._fetch()
            self._error = None
            self.answered()
        except TimeoutError:
            self._error = UpstreamUnreachable(
                f"The upstream took longer than {_PROBE_SECONDS:g} s to list its models.", status=504
            )
        except UpstreamError as error:
            self._error = error
        finally:
            self._probed_at = time.monotonic()


def _hangs(error: UpstreamError | None) -> bool:
    return error is not None and error.status == 504


def _away(error: UpstreamError) -> bool:
    return isinstance(error, UpstreamUnreachable) and not _hangs(error)


def read_models(payload: bytes) -> tuple[EngineAdapter, dict[str, ModelCard]]:
    """Return the engine that a reply of `/v1/models` shows, and its models. Entries need a name.

    Raises `UpstreamError`.
    """
    data = json_object(payload).get("data")
    entries = data if isinstance(data, list) else []
    listed = [
        entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    ]
    owners = [owner for entry in listed if isinstance(owner := entry.get("owned_by"), str)]
    engine = adapter_for(owners[0] if owners else None)
    return engine, _with_parents({entry["id"]: engine.card(entry) for entry in listed})


def _with_parents(cards: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
    """Return the cards; one that names a parent (in vLLM an adapter) has that parent's base and context."""
    return {name: _with_parent(card, cards.get(str(card.raw.get("parent")))) for name, card in cards.items()}


def _with_parent(card: ModelCard, parent: ModelCard | None) -> ModelCard:
    if parent is None or parent.name == card.name:
        return card
    return replace(card, base=parent.base or parent.name, context=card.context or parent.context)
