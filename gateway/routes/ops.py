"""`/health`, `/ready` and `/metrics`, for operators."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from gateway.http.streaming import json_response
from gateway.service import Service

__all__ = ["ops_router"]


def ops_router(service: Service) -> APIRouter:
    """Return the routes for this service."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """Report that the gateway runs, and problems of its aliases file, math workers or own engine."""
        pool = service.runner.vote_settings.pool
        problems = {"aliases": service.aliases.error, "math_workers": pool.failure if pool else None}
        named = {name: text for name, text in problems.items() if text}
        return json_response({"status": "ok", **named, **service.upstream.notices()})

    @router.get("/ready")
    async def ready() -> Response:
        """Return 200 if the upstream answers, so that the gateway can serve requests, else 503."""
        if await service.upstream.healthy():
            return json_response({"status": "ready"})
        return json_response({"status": "the upstream does not answer"}, 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
