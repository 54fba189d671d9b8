"""The evaluation's client retries failures that may pass, and only those."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import stamina
from aiohttp import web
from aiohttp.test_utils import TestServer

from training.evaluation.client import Client, RequestFailed, open_client

REPLY = {"data": [{"id": "tiny"}]}


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    """Retry without waiting."""
    with stamina.set_testing(True, attempts=4):
        yield


@asynccontextmanager
async def gateway(*responses: web.Response) -> AsyncIterator[tuple[Client, list[str]]]:
    """Yield a client of a server that gives these responses in order, and the paths requested."""
    pending, paths = iter(responses), list[str]()

    async def respond(request: web.Request) -> web.Response:
        paths.append(request.path)
        return next(pending)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    async with TestServer(app) as server, open_client(str(server.make_url("/v1")), 60) as client:
        yield client, paths


@pytest.mark.parametrize(
    "failure",
    [
        *[web.Response(status=status) for status in (408, 425, 429, 500, 502, 503, 504)],
        web.Response(text="<html>"),
        web.json_response([1]),
    ],
    ids=lambda response: f"{response.status} {response.text}",
)
async def test_a_failure_that_may_pass_is_retried(failure: web.Response) -> None:
    """Overload, server errors and replies that are not a JSON object are asked again."""
    async with gateway(failure, web.json_response(REPLY)) as (client, paths):
        assert await client.served_model() == "tiny"
    assert paths == ["/v1/models"] * 2


async def test_it_gives_up_after_three_retries() -> None:
    """The last failure is raised, with the gateway's own message."""
    refusals = [web.json_response({"error": {"message": f"busy {n}"}}, status=503) for n in range(5)]
    async with gateway(*refusals) as (client, paths):
        with pytest.raises(RequestFailed, match="503: busy 3"):
            await client.served_model()
    assert len(paths) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_refusal_is_not_retried(status: int) -> None:
    """The request itself is wrong, so that asking again would not help."""
    refusal = web.json_response({"error": {"message": "no"}}, status=status)
    async with gateway(refusal, web.json_response(REPLY)) as (client, paths):
        with pytest.raises(RequestFailed, match=f"{status}: no"):
            await client.served_model()
    assert len(paths) == 1


async def test_a_gateway_that_is_gone_is_asked_again_and_named() -> None:
    """A refused connection may pass too; the error names the address."""
    async with open_client("http://127.0.0.1:9/v1", 60) as client:
        with pytest.raises(RequestFailed, match=r"http://127\.0\.0\.1:9/v1 does not answer"):
            await client.served_model()
