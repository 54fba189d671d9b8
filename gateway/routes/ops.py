"""`/health`, `/ready` and `/metrics`, for those who run the gateway."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from gateway.http.streaming import json_response
from gateway.service import Service

__all__ = ["ops_router"]


def ops_router(service: Service) -> APIRouter:
    """The routes, working on this service."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """Say that the gateway itself runs, and what is wrong with its aliases file or its math workers."""
        pool = service.runner.vote_settings.pool
        problems = {"aliases": service.aliases.error, "math_workers": pool.failure if pool else None}
        return json_response({"status": "ok"} | {name: why for name, why in problems.items() if why})

    @router.get("/ready")
    async def ready() -> Response:
        """Whether the upstream answers, so that requests can be served: 200, else 503."""
        if await service.upstream.healthy():
            return json_response({"status": "ready"})
        return json_response({"status": "the upstream does not answer"}, 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
