"""Assembles the gateway. It decides nothing, and nothing in it is global."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.aliases import Aliases, AliasesError
from gateway.config import ConfigError, Settings
from gateway.errors import GatewayError
from gateway.http.auth import Keys, add_security
from gateway.http.error_bodies import error_response
from gateway.http.request_ids import RequestIds
from gateway.recordings.writer import Recorder
from gateway.routes.chat import chat_router
from gateway.routes.completions import completions_router
from gateway.routes.feedback import feedback_router
from gateway.routes.messages import messages_router
from gateway.routes.models import models_router
from gateway.routes.ops import ops_router
from gateway.routes.responses import responses_router
from gateway.runs.run import Runner
from gateway.runs.scorers import Scorers
from gateway.runs.voting import LazyAsyncPool, VoteSettings
from gateway.service import Service, check_settings
from gateway.upstreams.base import Upstream, UpstreamLimits
from gateway.upstreams.client import HTTPUpstream

__all__ = ["create_app", "make_recorder", "make_upstream", "make_vote_settings"]


def make_upstream(settings: Settings) -> Upstream:
    """Return the upstream that the settings name, or else the embedded engine."""
    limits = UpstreamLimits(
        settings.connect_timeout,
        settings.first_token_timeout,
        settings.idle_timeout,
        settings.total_timeout,
        settings.max_event_bytes,
        settings.max_reply_bytes,
        settings.max_logprobs_reply_bytes,
        settings.max_compression_ratio,
        settings.max_header_bytes,
    )
    if settings.upstream is not None:
        key = settings.upstream_key.get_secret_value() if settings.upstream_key else None
        return HTTPUpstream(str(settings.upstream), key, limits=limits)
    from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions
    from gateway.upstreams.embedded.upstream import EmbeddedUpstream

    options = EmbeddedOptions(
        settings.embedded_model,
        settings.embedded_slots,
        settings.embedded_context,
        settings.embedded_adapters,
    )
    return EmbeddedUpstream(EmbeddedEngine(options), limits=limits)


def make_vote_settings(
    settings: Settings, scorers: Scorers, pool: LazyAsyncPool | None = None
) -> VoteSettings:
    """Return the settings of votes; `pool` holds the grader's workers."""
    return VoteSettings(
        pool,
        scorers.scorers,
        launch=settings.launch,
        concurrency=settings.concurrency,
        free_form=settings.free_form,
        scorer_seconds=settings.scorer_seconds,
        top_logprobs=settings.top_logprobs,
        window=settings.confidence_window,
    )


def make_recorder(settings: Settings) -> Recorder | None:
    """Return a recorder if the settings name a file to record to."""
    if settings.record_to is None:
        return None
    return Recorder(settings.record_to, settings.record_redact, settings.record_images)


def make_aliases(settings: Settings) -> Aliases:
    """Return the aliases that the settings name. Raises `ConfigError`."""
    try:
        return Aliases(settings.aliases)
    except AliasesError as error:
        raise ConfigError(str(error)) from error


def _embedded_files(settings: Settings) -> tuple[Path, ...]:
    """Return the model files that the settings name for the embedded engine, if it serves at all."""
    if settings.upstream is not None:
        return ()
    model = settings.embedded_model
    return settings.embedded_adapters if model is None else (*settings.embedded_adapters, model)


def create_app(
    settings: Settings | None = None, upstream: Upstream | None = None, recorder: Recorder | None = None
) -> FastAPI:
    """Return the gateway as an ASGI app. `upstream` and `recorder` replace those of the settings.

    Raises `ConfigError` for settings that can't work.
    """
    settings = settings or Settings()
    check_settings(settings)
    upstream = upstream or make_upstream(settings)
    recorder = recorder or make_recorder(settings)
    try:
        scorers = Scorers(settings.scorers, _embedded_files(settings))
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    pool = LazyAsyncPool(settings.math_workers) if settings.math_workers else None
    vote_settings = make_vote_settings(settings, scorers, pool)
    aliases = make_aliases(settings)
    service = Service(
        settings, upstream, Runner(upstream, vote_settings=vote_settings), aliases=aliases, recorder=recorder
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            if recorder is not None:
                await asyncio.to_thread(recorder.start)
            await upstream.start()
            aliases.start()
            if pool is not None:
                pool.open()
            yield
        finally:
            await aliases.close()
            await upstream.close()
            await scorers.close()
            if pool is not None:
                await pool.close_async()
            if recorder is not None:
                await asyncio.to_thread(recorder.close)

    app = FastAPI(
        title="ThinkGate",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it costs each request a look-up
    )
    routers = (
        chat_router(service),
        responses_router(service),
        messages_router(service),
        completions_router(service),
        models_router(service),
        feedback_router(service),
        ops_router(service),
    )
    # Before FastAPI's own pages: routes are tried in their order.
    app.router.routes[:0] = [route for router in routers for route in router.routes]
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_error)
    if settings.keys:
        app.add_middleware(Keys, keys=settings.keys)
        app.openapi_schema = add_security(app.openapi())
    app.add_middleware(RequestIds)
    return app


async def _gateway_error(request: Request, error: Any) -> Response:
    return error_response(request.scope["path"], error.body()["error"], error.status, error.headers)


async def _http_error(request: Request, error: Any) -> Response:
    """Answer an unknown path or method."""
    path = request.scope["path"]
    message = f"{request.method} {path}: {error.detail}."
    fields = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return error_response(path, fields, error.status_code, error.headers)
