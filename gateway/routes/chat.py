"""`POST /v1/chat/completions`."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.budget import read_budget
from gateway.dialects.chat import ChatStream, chat_body, parse_body, read_reply
from gateway.errors import GatewayError
from gateway.events import Outcome
from gateway.planning import Job, plan_job
from gateway.routes.schemas import CHAT_OPENAPI
from gateway.service import Service
from gateway.stream import ClientGone, EventStream, fold, hang_up_watch, json_response, write

__all__ = ["chat_router"]

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that hung up; only ever seen in the metrics


def chat_router(service: Service) -> APIRouter:
    """The route, working on this service."""
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=CHAT_OPENAPI, summary="Create a chat completion")
    async def chat_completions(request: Request) -> Response:
        """OpenAI's chat completions, with a reasoning budget, samples and a vote on top."""
        payload = await request.body()
        service.metrics.begin()
        try:
            async with hang_up_watch(request.receive):
                job, model = await _job(service, request, parse_body(payload))
                if job.reply.stream:
                    return await _stream(service, job, model)
                outcome = await fold(service.engine.run(job))
        except ClientGone:
            service.metrics.end(CLIENT_CLOSED_REQUEST)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except GatewayError as error:
            service.metrics.end(error.status)
            raise
        except BaseException:
            service.metrics.end(500)
            raise
        service.metrics.outcome(job, outcome)
        service.metrics.end(200)
        headers = {**_headers(job), "X-Samples-Used": str(outcome.counts.finished)}
        return json_response(chat_body(job, outcome, model), headers=headers)

    return router


async def _job(service: Service, request: Request, body: dict[str, Any]) -> tuple[Job, str]:
    """The request read and planned, and the upstream's name for its model."""
    resolved = await service.resolve(body.get("model") or "")
    model = service.model(resolved)
    body["model"] = resolved.name
    asked = read_budget(
        request.headers,
        body,
        level=resolved.level,
        samples=resolved.samples,
        max_samples=service.settings.max_samples,
        levels=model.levels,
    )
    reply = read_reply(body, asked)
    job = plan_job(body, asked, reply, model)
    return job, resolved.name


async def _stream(service: Service, job: Job, model: str) -> Response:
    """The reply as server-sent events, begun when the first of them is there."""

    status = CLIENT_CLOSED_REQUEST

    def ended(outcome: Outcome) -> None:
        nonlocal status
        status = 200
        service.metrics.outcome(job, outcome)

    source = write(service.engine.run(job), ChatStream(job, model), ended)
    try:
        first = await anext(source)
    except BaseException:
        async with aclosing(source):
            raise
    return EventStream(source, first, _headers(job), lambda: service.metrics.end(status))


def _headers(job: Job) -> dict[str, str]:
    limit = job.budget.thinking_tokens
    applied = "none" if limit is None else str(limit)
    return {"X-Reasoning-Budget-Applied": applied}
