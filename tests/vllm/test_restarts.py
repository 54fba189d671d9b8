"""A vLLM that is paused, killed and started again while requests run: what the clients get.

The tests run in their order. They share one vLLM on one port, and one gateway that never restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import until
from tests.serving import events_of, serving_in_thread
from tests.vllm.server import ROOMY, VllmServer, free_port, serve

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
LIMIT = 1500
"""Thinking tokens of a vote's sample: some seconds, in which it can be interrupted."""
SAMPLES = 3
PATIENCE = 60.0
RECOVERY = 2.0
"""Seconds in which the gateway is ready again, once its upstream answers."""


@dataclass
class Bench:
    """A gateway, and the vLLM behind it, which can be started again."""

    url: str
    port: int
    python: str
    model: Path
    logs: Path
    server: VllmServer | None = None
    processes: ExitStack | None = None

    @property
    def vllm(self) -> VllmServer:
        """Return the vLLM that runs."""
        assert self.server is not None
        return self.server

    def start(self) -> None:
        """Start vLLM with the routes that pause it; return once it serves."""
        self.stop()
        self.processes = ExitStack()
        log = self.logs / f"vllm-{time.monotonic_ns()}.log"
        development = {"VLLM_SERVER_DEV_MODE": "1"}
        server = serve(self.python, self.model, log, context=ROOMY, port=self.port, environment=development)
        self.server = self.processes.enter_context(server)

    def stop(self) -> None:
        """Remove what is left of vLLM."""
        if self.processes is not None:
            self.processes.close()
        self.server = self.processes = None

    def control(self, route: str) -> None:
        """Call one of vLLM's own routes."""
        self.vllm.http.post(route).raise_for_status()

    def body(self, **fields: Any) -> Json:
        """Return a request whose samples think until a limit stops them."""
        question = {"model": "tiny", "prompt": "</think>", "add_special_tokens": False}
        [token] = self.vllm.http.post("/tokenize", json=question).json()["tokens"]
        messages = [{"role": "user", "content": "What is two plus five?"}]
        return {"model": "tiny", "messages": messages, "logit_bias": {str(token): -100}, **fields}


@pytest.fixture(scope="module")
def bench(vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Start vLLM on a port of its own, and a gateway in front of it."""
    port = free_port()
    settings = Settings(upstream=HttpUrl(f"http://127.0.0.1:{port}/v1"))
    with serving_in_thread(create_app(settings)) as url:
        bench = Bench(url, port, vllm_python, tiny_model, tmp_path_factory.mktemp("restarts"))
        bench.start()
        try:
            yield bench
        finally:
            bench.stop()


@dataclass
class Requests:
    """Requests in flight: one sample alone, and a vote, each whole and streamed."""

    alone: asyncio.Task[httpx.Response]
    alone_streamed: asyncio.Task[httpx.Response]
    vote: asyncio.Task[httpx.Response]
    vote_streamed: asyncio.Task[httpx.Response]

    async def ended(self, *, alone_only: bool = False) -> list[httpx.Response]:
        """Return the responses, or those of the single samples."""
        tasks = [self.alone, self.alone_streamed]
        if not alone_only:
            tasks += [self.vote, self.vote_streamed]
        return await asyncio.gather(*tasks)


async def begin(http: httpx.AsyncClient, bench: Bench) -> Requests:
    """Send four requests; return once vLLM generates all of their samples."""
    started = bench.vllm.started()
    vote = {"X-Samples": str(SAMPLES), "X-Stop": "none", "X-Reasoning-Budget": str(LIMIT)}
    tasks = [
        asyncio.create_task(
            http.post(bench.url + CHAT, json=bench.body(stream=stream, **fields), headers=headers)
        )
        for headers, fields in (({}, {"max_tokens": ROOMY - 1000}), (vote, {}))
        for stream in (False, True)
    ]
    await until(lambda: bench.vllm.started() - started == 2 + 2 * SAMPLES, "the samples' start", PATIENCE)
    return Requests(*tasks)


@pytest.fixture
async def http() -> Any:
    """Open a client with timeouts for a busy machine."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        yield client


def assert_failed(whole: httpx.Response, streamed: httpx.Response, *, code: str | None = None) -> None:
    """Check that two single samples came to an error: a status, and an event after the first text."""
    assert whole.status_code == 502, whole.text
    assert code is None or whole.json()["error"]["code"] == code
    assert streamed.status_code == 200
    assert "[DONE]" not in streamed.text
    *shown, last = events_of(streamed.text)
    assert "error" in last
    assert any(event["choices"][0]["delta"].get("reasoning") for event in shown if event.get("choices"))


def scaling_of(response: httpx.Response) -> Json:
    """Return the report of a reply, whole or streamed."""
    assert response.status_code == 200, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        reports = [event["scaling"] for event in events_of(response.text) if "scaling" in event]
        return dict(next(report for report in reversed(reports) if "budget" in report))
    return dict(response.json()["scaling"])


async def ready(http: httpx.AsyncClient, bench: Bench) -> int:
    """Return the status of `/ready`."""
    return (await http.get(f"{bench.url}/ready")).status_code


async def until_ready(http: httpx.AsyncClient, bench: Bench, status: int, seconds: float) -> None:
    """Wait until `/ready` has this status."""
    deadline = time.monotonic() + seconds
    while (found := await ready(http, bench)) != status:
        assert time.monotonic() < deadline, f"/ready is {found} and not {status} after {seconds} s"
        await asyncio.sleep(0.05)


async def assert_works(http: httpx.AsyncClient, bench: Bench) -> None:
    """Check that a request and a vote get their answers."""
    body = bench.body()
    del body["logit_bias"]
    for headers in ({}, {"X-Samples": "2"}):
        response = await http.post(bench.url + CHAT, json=body, headers=headers)
        assert response.status_code == 200, response.text
        assert "boxed" in response.json()["choices"][0]["message"]["content"]


async def test_a_pause_ends_single_samples_and_costs_votes_a_second_wave(
    http: httpx.AsyncClient, bench: Bench
) -> None:
    """vLLM ends all samples as `abort`. Single ones are errors; a vote draws its samples again, and ends."""
    requests = await begin(http, bench)
    bench.control("/pause")
    assert_failed(*await requests.ended(alone_only=True), code="abort")
    bench.control("/resume")
    for response in (await requests.vote, await requests.vote_streamed):
        scaling = scaling_of(response)
        samples = scaling["samples"]
        assert (samples["failed"], samples["finished"]) == (SAMPLES, SAMPLES)
        assert samples["launched"] == 2 * SAMPLES
        assert sum(group["count"] for group in scaling["vote"]["groups"]) == SAMPLES
    await assert_works(http, bench)


async def test_a_dead_engine_is_an_error_and_the_gateway_recovers(
    http: httpx.AsyncClient, bench: Bench
) -> None:
    """The vote finds no engine for its second wave; `/ready` follows vLLM's end and its return."""
    assert await ready(http, bench) == 200
    requests = await begin(http, bench)
    bench.vllm.kill_engine()
    alone, alone_streamed, vote, vote_streamed = await requests.ended()
    assert_failed(alone, alone_streamed)
    for response in (vote, vote_streamed):
        assert response.status_code == 502, response.text
        assert response.json()["error"]["message"]
    await until_ready(http, bench, 503, PATIENCE)
    await asyncio.to_thread(bench.start)
    await until_ready(http, bench, 200, RECOVERY)
    await assert_works(http, bench)


async def test_a_killed_server_is_an_error(http: httpx.AsyncClient, bench: Bench) -> None:
    """The connections break, and nothing is there for a second wave."""
    requests = await begin(http, bench)
    bench.vllm.kill()
    alone, alone_streamed, vote, vote_streamed = await requests.ended()
    assert_failed(alone, alone_streamed)
    assert (vote.status_code, vote_streamed.status_code) == (502, 502)
    await until_ready(http, bench, 503, RECOVERY)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Still there?"}]}
    response = await http.post(bench.url + CHAT, json=body)
    assert response.status_code == 502
