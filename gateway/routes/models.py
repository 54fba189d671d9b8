"""`GET /v1/models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.aliases import Target
from gateway.errors import ModelNotFound
from gateway.http.auth import key_of
from gateway.http.streaming import json_response
from gateway.service import Service, fits
from gateway.upstreams.base import ModelCard

__all__ = ["models_router"]


def models_router(service: Service) -> APIRouter:
    """Return the routes for this service."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models(request: Request) -> Response:
        """List the upstream's models with its own fields, and the aliases with their targets."""
        cards = await _cards(service, request)
        entries = [dict(card.raw) for card in cards.values()]
        if service.settings.list_variants:
            entries += [_variant(card, level) for card in cards.values() for level in service.levels(card)]
        return json_response({"object": "list", "data": entries})

    @router.get("/v1/models/{model:path}")
    async def get_model(request: Request, model: str) -> Response:
        """Return one model."""
        cards = await _cards(service, request)
        if model not in cards:
            raise ModelNotFound(model, cards)
        return json_response(cards[model].raw)

    return router


async def _cards(service: Service, request: Request) -> dict[str, ModelCard]:
    """Return the models and aliases that the request's key may use. An alias hides a model of its name."""
    key = key_of(request)
    cards = await service.upstream.models(refresh=True)
    aliases = {name: _alias(name, targets, cards) for name, targets in service.aliases.table.items()}
    return {
        name: card for name, card in {**cards, **aliases}.items() if key is None or fits(name, key.models)
    }


def _alias(name: str, targets: Sequence[Target], cards: Mapping[str, ModelCard]) -> ModelCard:
    """Return an alias as a model that looks like the target with the largest share."""
    largest = max(targets, key=lambda target: target.share)
    card = cards.get(
        largest.model, ModelCard(largest.model, raw={"object": "model", "owned_by": "thinkgate"})
    )
    shares = [target.model_dump() for target in targets]
    return replace(card, name=name, raw={**card.raw, "id": name, "targets": shares})


def _variant(card: ModelCard, level: str) -> dict[str, Any]:
    return {**card.raw, "id": f"{card.name}:{level}", "parent": card.name}
