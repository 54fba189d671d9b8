"""A request in any dialect -> the engine -> its answer; what the generating routes have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.aliases import conversation_key
from gateway.config import Allowance
from gateway.dialects.base import Exchange
from gateway.errors import GatewayError
from gateway.http.auth import key_name_of, key_of, owner_of
from gateway.http.request_ids import REQUEST_ID
from gateway.http.streaming import ClientGone, EventStream, HangUpWatch, fold, json_response, write
from gateway.recordings.lines import Provenance
from gateway.runs.budget import RequestedSampling, read_sampling
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, plan_request
from gateway.service import Resolved, Service, limited

__all__ = ["answer", "attended", "ended", "plan", "resolve", "start_stream"]

_ROUTE = "thinkgate.route"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that hung up; only ever seen in the metrics


async def answer(service: Service, request: Request, read: Callable[[bytes], Exchange]) -> Response:
    """Answers a request that `read` understands."""

    async def work(payload: bytes) -> Response:
        exchange = read(payload)
        run_request, model = await plan(service, request, exchange.chat)
        if run_request.reply.stream:
            return await _stream(service, run_request, exchange, model, request)
        result = await fold(service.runner.run(run_request))
        body = exchange.reply(run_request, result, model)
        service.finished(run_request, result, _provenance(str(body["id"]), request))
        headers = {**_headers(run_request), "X-Samples-Used": str(result.counts.finished)}
        return json_response(body, headers=headers)

    return await attended(service, request, work)


async def attended(
    service: Service, request: Request, work: Callable[[bytes], Awaitable[Response]]
) -> Response:
    """Does the work on the request's payload for as long as the client is there; counts how it ended.

    A stream that `work` returns is counted when it ends (see `start_stream`).
    """
    try:
        payload = await request.body()
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    service.metrics.begin()
    try:
        async with HangUpWatch(request.receive):
            response = await work(payload)
    except ClientGone:
        ended(service, request, CLIENT_CLOSED_REQUEST)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except GatewayError as error:
        ended(service, request, error.status)
        raise
    except BaseException:
        ended(service, request, 500)
        raise
    if not isinstance(response, EventStream):
        ended(service, request, 200)
    return response


def ended(service: Service, request: Request, status: int) -> None:
    """Counts how a request ended, and for which alias's target."""
    service.metrics.end(status, request.scope.get(_ROUTE))


async def resolve(service: Service, request: Request, body: Mapping[str, Any]) -> Resolved:
    """The model that a body names; with an alias, the conversation always meets the same target."""
    key = key_of(request)
    resolved = await service.resolve(
        body.get("model") or "",
        key.models if key else ("*",),
        conversation_key(body) if service.aliases.table else "",
    )
    request.scope[_ROUTE] = resolved.route
    return resolved


async def plan(service: Service, request: Request, body: dict[str, Any]) -> tuple[RunRequest, str]:
    """The chat request planned, with the headers' budget, and the upstream's name for its model."""
    resolved = await resolve(service, request, body)
    body["model"] = resolved.name
    allowances = _allowances(service, request)
    model = limited(await service.model(resolved), allowances)
    caps = [each.max_samples for each in allowances.values() if each.max_samples is not None]
    max_samples = min([service.settings.max_samples, *caps])
    asked = read_sampling(
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
    auto_cap = min(service.settings.auto_samples, max_samples)
    reply = _reply(body, asked)
    run_request = plan_request(body, asked, reply, model, auto_cap=auto_cap, max_samples=max_samples)
    return replace(run_request, route=resolved.route) if resolved.route else run_request, resolved.name


def _allowances(service: Service, request: Request) -> dict[str, Allowance]:
    """What bears on the request beside its model, by who gave it; the first beats the next."""
    path = request.scope["path"].removesuffix("/count_tokens")
    route = next((own for route, own in service.settings.routes.items() if route == path), None)
    found: dict[str, Allowance | None] = {"key": key_of(request), "route": route}
    return {by: allowance for by, allowance in found.items() if allowance is not None}


async def start_stream(
    source: AsyncGenerator[bytes, None], headers: dict[str, str], ended: Callable[[], None]
) -> EventStream:
    """The stream, once its first bytes are there: what fails before them is raised."""
    try:
        first = await anext(source)
    except BaseException:
        async with aclosing(source):
            raise
    return EventStream(source, first, headers, ended)


async def _stream(
    service: Service, run_request: RunRequest, exchange: Exchange, model: str, request: Request
) -> EventStream:
    status = CLIENT_CLOSED_REQUEST
    writer = exchange.writer(run_request, model)

    def told(end: RunResult | int) -> None:
        nonlocal status
        status = end if isinstance(end, int) else 200
        if isinstance(end, RunResult):
            service.finished(run_request, end, _provenance(writer.id, request))

    source = write(service.runner.run(run_request), writer, told)
    return await start_stream(source, _headers(run_request), lambda: ended(service, request, status))


def _reply(body: dict[str, Any], asked: RequestedSampling) -> ReplyOptions:
    """How the client wants its answer; takes the fields that say so away from `body`."""
    choices = body.pop("n", None) or 1
    stream = bool(body.pop("stream", None))
    options = body.get("stream_options") or {}
    if not stream:
        body.pop("stream_options", None)
    return ReplyOptions(
        stream,
        choices,
        bool(options.get("include_usage")),
        asked.exclude,
        asked.scaling.stream,
        asked.scaling.trace,
    )


def _provenance(completion_id: str, request: Request) -> Provenance:
    key = key_of(request)
    return Provenance(
        completion_id,
        str(request.scope.get(REQUEST_ID, "")),
        owner_of(request),
        key_name_of(request),
        request.headers.get("x-session-id", ""),
        key is None or key.training_allowed,
    )


def _headers(run_request: RunRequest) -> dict[str, str]:
    limit = run_request.sampling.thinking_limit
    return {"X-Reasoning-Budget-Applied": "none" if limit is None else str(limit)}
