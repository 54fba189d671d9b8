"""What all routes that generate share: they turn a request into a run, and the run into a reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.aliases import conversation_key
from gateway.config import Allowance, KeySettings
from gateway.dialects.base import Exchange, encode
from gateway.errors import GatewayError, UpstreamError
from gateway.http.auth import key_name_of, key_of
from gateway.http.request_ids import REQUEST_ID
from gateway.http.streaming import (
    CLIENT_CLOSED_REQUEST,
    ClientGone,
    DisconnectWatch,
    EventStream,
    sendable,
    write,
)
from gateway.recordings.lines import Provenance
from gateway.runs.budget import RequestedSampling, read_sampling
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, plan_request
from gateway.service import ResolvedModel, Service

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "generation_endpoint",
    "plan",
    "resolve",
    "run_while_connected",
    "stream_response",
]

_RESOLVED = "thinkgate.resolved_model"
Endpoint = Callable[[Request], Awaitable[Response]]


def generation_endpoint(service: Service, read: Callable[[bytes], Exchange]) -> Endpoint:
    """Return an endpoint that answers requests in the dialect that `read` understands."""

    async def endpoint(request: Request) -> Response:
        async def work(payload: bytes) -> Response:
            exchange, key = read(payload), key_of(request)
            run_request = await plan(service, request, exchange.chat, key, translated=exchange.translated)
            if run_request.reply.stream:
                return _stream(service, run_request, exchange, (request, key))
            result = await service.runner.complete(run_request)
            body = exchange.reply(run_request, result, run_request.model.name)
            _count_and_record(service, run_request, result, str(body.get("id", "")), (request, key))
            headers = _headers(run_request)
            if result.headers:
                headers = {**sendable(result.headers), **headers}
            if not run_request.reply.plain:
                headers["X-Samples-Used"] = str(result.counts.finished)
            return Response(encode(body), headers=headers, media_type="application/json")

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

    A stream that `work` returns is counted when it ends (see `stream_response`).
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
        _count_end(service, request, CLIENT_CLOSED_REQUEST)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except GatewayError as error:
        failure = _explain(request, error)
        _count_end(service, request, failure.status)
        raise failure from error.__cause__
    except BaseException:
        _count_end(service, request, 500)
        raise
    if not isinstance(response, EventStream):
        _count_end(service, request, 200)
    return response


def _count_end(service: Service, request: Request, status: int) -> None:
    """Count how a request ended, and for which alias's target."""
    resolved: ResolvedModel | None = request.scope.get(_RESOLVED)
    service.metrics.count_end(status, resolved.route if resolved else None)


def _explain(request: Request, error: GatewayError) -> GatewayError:
    """Return the error in the client's terms: an upstream's 404 may mean that it has no such model."""
    resolved: ResolvedModel | None = request.scope.get(_RESOLVED)
    if resolved is None or not isinstance(error, UpstreamError) or error.status != 404:
        return error
    return resolved.not_served() or error


async def resolve(
    service: Service, request: Request, body: Mapping[str, Any], key: KeySettings | None
) -> ResolvedModel:
    """Return the model that a body names. An alias gives a conversation the same target every time."""
    resolved = await service.resolve(*_model_lookup(service, body, key))
    request.scope[_RESOLVED] = resolved
    return resolved


def _model_lookup(
    service: Service, body: Mapping[str, Any], key: KeySettings | None
) -> tuple[str, Collection[str], str]:
    """Return the name of a model, the patterns that the key allows, and what chooses an alias's target."""
    conversation = conversation_key(body) if service.aliases.table else ""
    return body.get("model") or "", key.models if key else ("*",), conversation


async def plan(
    service: Service,
    request: Request,
    body: dict[str, Any],
    key: KeySettings | None,
    *,
    translated: bool = False,
) -> RunRequest:
    """Plan a chat request, with the budget from its headers and body, for the model that it names.

    `translated`: the body is a translation, in which fields about the display of thinking are not meant
    for the upstream.
    """
    allowances = _allowances(service, request, key)
    resolved, model = await service.resolve_and_describe(*_model_lookup(service, body, key), allowances)
    request.scope[_RESOLVED] = resolved
    if resolved.name != body.get("model", ""):
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
        limited=translated or model.default is not None or model.cap is not None,
    )
    stream = bool(body.get("stream"))
    if stream:
        del body["stream"]
    run_request = plan_request(
        body,
        requested,
        _reply_options(body, requested, stream=stream),
        model,
        auto_cap=min(service.settings.auto_samples, max_samples),
        max_samples=max_samples,
        route=resolved.route,
    )
    return _finish_plan(run_request, plain=service.settings.plain_replies)


def _finish_plan(run_request: RunRequest, *, plain: bool) -> RunRequest:
    """Leave in the body of a request that asks for something only what is said upstream of one sample."""
    reply = run_request.reply
    if run_request.verbatim:
        return replace(run_request, reply=replace(reply, plain=True)) if plain else run_request
    own = {"n", "stream"} if reply.stream else {"n", "stream", "stream_options"}
    if own.isdisjoint(run_request.body):
        return run_request
    return replace(run_request, body={k: v for k, v in run_request.body.items() if k not in own})


def _allowances(service: Service, request: Request, key: KeySettings | None) -> dict[str, Allowance]:
    """Return the allowances of the key and the route that apply; an earlier one beats a later one."""
    path = request.scope["path"].removesuffix("/count_tokens")
    route = next((own for route, own in service.settings.routes.items() if route == path), None)
    allowances: dict[str, Allowance | None] = {"key": key, "route": route}
    return {by: allowance for by, allowance in allowances.items() if allowance is not None}


def stream_response(
    service: Service,
    request: Request,
    source: AsyncGenerator[bytes, None],
    headers: Mapping[str, str],
    *,
    heartbeat: Callable[[], bytes],
    fail: Callable[[GatewayError], bytes],
) -> EventStream:
    """Return the stream of a source, which is never silent for long and is counted when it ends.

    `heartbeat` returns a sign of life, `fail` the event of a failure after the status.
    """
    return EventStream(
        source,
        headers,
        period=service.settings.heartbeat,
        heartbeat=heartbeat,
        explain=partial(_explain, request),
        fail=fail,
        on_end=partial(_count_end, service, request),
    )


def _stream(
    service: Service, run_request: RunRequest, exchange: Exchange, caller: tuple[Request, KeySettings | None]
) -> EventStream:
    writer = exchange.writer(run_request, run_request.model.name)

    def on_result(result: RunResult) -> None:
        _count_and_record(service, run_request, result, writer.id, caller)

    return stream_response(
        service,
        caller[0],
        write(service.runner.run(run_request), writer, on_result),
        _headers(run_request),
        heartbeat=writer.heartbeat,
        fail=writer.error,
    )


def _reply_options(body: Mapping[str, Any], requested: RequestedSampling, *, stream: bool) -> ReplyOptions:
    """Return how the client wants its answer."""
    options = body.get("stream_options") or {}
    return ReplyOptions(
        stream,
        body.get("n") or 1,
        bool(options.get("include_usage")),
        requested.exclude,
        requested.scaling.stream,
        requested.scaling.trace,
    )


def _headers(run_request: RunRequest) -> dict[str, str]:
    if run_request.reply.plain:
        return {}
    limit = run_request.sampling.thinking_limit
    return {"X-Reasoning-Budget-Applied": "none" if limit is None else str(limit)}
