"""What all routes that generate share: they turn a request into a run, and the run into a reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.aliases import conversation_key
from gateway.config import Allowance, KeySettings
from gateway.dialects.base import Exchange
from gateway.errors import GatewayError
from gateway.http.auth import key_name_of, key_of
from gateway.http.request_ids import REQUEST_ID
from gateway.http.streaming import ClientGone, DisconnectWatch, EventStream, json_response, write
from gateway.recordings.lines import Provenance
from gateway.runs.budget import RequestedSampling, read_sampling
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, plan_request
from gateway.service import ResolvedModel, Service

__all__ = ["count_end", "generation_endpoint", "plan", "resolve", "run_while_connected", "start_stream"]

_ROUTE = "thinkgate.route"
Endpoint = Callable[[Request], Awaitable[Response]]
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected; only ever seen in the metrics


def generation_endpoint(service: Service, read: Callable[[bytes], Exchange]) -> Endpoint:
    """Return an endpoint that answers requests in the dialect that `read` understands."""

    async def endpoint(request: Request) -> Response:
        async def work(payload: bytes) -> Response:
            exchange, key = read(payload), key_of(request)
            run_request = await plan(service, request, exchange.chat, key)
            if run_request.reply.stream:
                return await _stream(service, run_request, exchange, request, key)
            result = await service.runner.complete(run_request)
            body = exchange.reply(run_request, result, run_request.model.name)
            _count_and_record(service, run_request, result, str(body["id"]), (request, key))
            headers = {**_headers(run_request), "X-Samples-Used": str(result.counts.finished)}
            return json_response(body, headers=headers)

        return await run_while_connected(service, request, work)

    return endpoint


def _count_and_record(
    service: Service,
    run_request: RunRequest,
    result: RunResult,
    completion_id: str,
    caller: tuple[Request, KeySettings | None],
) -> None:
    """Count a request that has its result, and record it if the settings ask for that."""
    service.metrics.count_result(run_request, result)
    if service.recorder is None:
        return
    request, key = caller
    provenance = Provenance(
        completion_id,
        str(request.scope.get(REQUEST_ID, "")),
        key.secret_sha256 if key else "",
        key_name_of(request),
        request.headers.get("x-session-id", ""),
        key is None or key.training_allowed,
    )
    service.recorder.record(run_request, result, provenance)


async def run_while_connected(
    service: Service, request: Request, work: Callable[[bytes], Awaitable[Response]]
) -> Response:
    """Do the work on the request's payload until the client disconnects; count how it ended.

    A stream that `work` returns is counted when it ends (see `start_stream`).
    """
    try:
        payload = await request.body()
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    service.metrics.count_start()
    try:
        async with DisconnectWatch(request.receive):
            response = await work(payload)
    except ClientGone:
        count_end(service, request, CLIENT_CLOSED_REQUEST)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except GatewayError as error:
        count_end(service, request, error.status)
        raise
    except BaseException:
        count_end(service, request, 500)
        raise
    if not isinstance(response, EventStream):
        count_end(service, request, 200)
    return response


def count_end(service: Service, request: Request, status: int) -> None:
    """Count how a request ended, and for which alias's target."""
    service.metrics.count_end(status, request.scope.get(_ROUTE))


async def resolve(
    service: Service, request: Request, body: Mapping[str, Any], key: KeySettings | None
) -> ResolvedModel:
    """Return the model that a body names. An alias gives a conversation the same target every time."""
    resolved = await service.resolve(*_model_lookup(service, body, key))
    request.scope[_ROUTE] = resolved.route
    return resolved


def _model_lookup(
    service: Service, body: Mapping[str, Any], key: KeySettings | None
) -> tuple[str, Collection[str], str]:
    """Return the name of a model, the patterns that the key allows, and what chooses an alias's target."""
    conversation = conversation_key(body) if service.aliases.table else ""
    return body.get("model") or "", key.models if key else ("*",), conversation


async def plan(
    service: Service, request: Request, body: dict[str, Any], key: KeySettings | None
) -> RunRequest:
    """Plan a chat request, with the budget from its headers and body, for the model that it names."""
    allowances = _allowances(service, request, key)
    resolved, model = await service.resolve_and_describe(*_model_lookup(service, body, key), allowances)
    request.scope[_ROUTE] = resolved.route
    body["model"] = resolved.name
    caps = [allowance.max_samples for allowance in allowances.values() if allowance.max_samples is not None]
    max_samples = min([service.settings.max_samples, *caps])
    requested = read_sampling(
        {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.scope["headers"]
            if name.startswith(b"x-")
        },
        body,
        level=resolved.level,
        samples=resolved.samples,
        max_samples=max_samples,
        levels=model.levels,
        scorers=service.scorers,
    )
    return plan_request(
        body,
        requested,
        _reply(body, requested),
        model,
        auto_cap=min(service.settings.auto_samples, max_samples),
        max_samples=max_samples,
        route=resolved.route,
    )


def _allowances(service: Service, request: Request, key: KeySettings | None) -> dict[str, Allowance]:
    """Return the allowances of the key and the route that apply; an earlier one beats a later one."""
    path = request.scope["path"].removesuffix("/count_tokens")
    route = next((own for route, own in service.settings.routes.items() if route == path), None)
    allowances: dict[str, Allowance | None] = {"key": key, "route": route}
    return {by: allowance for by, allowance in allowances.items() if allowance is not None}


async def start_stream(
    source: AsyncGenerator[bytes, None], headers: dict[str, str], on_end: Callable[[], None]
) -> EventStream:
    """Wait for the first bytes and return the stream. Raises the error of a failure before them."""
    try:
        first = await anext(source)
    except BaseException:
        async with aclosing(source):
            raise
    return EventStream(source, first, headers, on_end)


async def _stream(
    service: Service, run_request: RunRequest, exchange: Exchange, request: Request, key: KeySettings | None
) -> EventStream:
    status = CLIENT_CLOSED_REQUEST
    writer = exchange.writer(run_request, run_request.model.name)

    def on_run_end(end: RunResult | int) -> None:
        nonlocal status
        status = end if isinstance(end, int) else 200
        if isinstance(end, RunResult):
            _count_and_record(service, run_request, end, writer.id, (request, key))

    source = write(service.runner.run(run_request), writer, on_run_end)
    return await start_stream(source, _headers(run_request), lambda: count_end(service, request, status))


def _reply(body: dict[str, Any], requested: RequestedSampling) -> ReplyOptions:
    """Return how the client wants its answer; remove the fields that say so from `body`."""
    choices = body.pop("n", None) or 1
    stream = bool(body.pop("stream", None))
    options = body.get("stream_options") or {}
    if not stream:
        body.pop("stream_options", None)
    return ReplyOptions(
        stream,
        choices,
        bool(options.get("include_usage")),
        requested.exclude,
        requested.scaling.stream,
        requested.scaling.trace,
    )


def _headers(run_request: RunRequest) -> dict[str, str]:
    limit = run_request.sampling.thinking_limit
    return {"X-Reasoning-Budget-Applied": "none" if limit is None else str(limit)}
