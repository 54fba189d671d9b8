"""Fixtures of all tests: one gateway with the embedded engine for each session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import settings

from gateway.app import create_app
from gateway.config import Settings
from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions
from gateway.upstreams.embedded.upstream import EmbeddedUpstream
from tests.serving import serving_in_thread

settings.register_profile("unhurried", deadline=None)  # the speed of the machine proves nothing
settings.load_profile("unhurried")


WINDOW = 8
"""Tokens of a confidence window; the replies in the tests are that short."""


@dataclass(frozen=True)
class EmbeddedGateway:
    """A real gateway in front of the real embedded engine."""

    url: str
    engine: EmbeddedEngine

    @property
    def model(self) -> str:
        """Return the name of the model, as clients give it."""
        return self.engine.model_name

    async def running(self) -> int:
        """Count the samples that the engine generates or queues, by its own metrics."""
        root = self.engine.base_url.removesuffix("/v1")
        headers = {"Authorization": f"Bearer {self.engine.api_key}"}
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{root}/metrics", headers=headers)).text.splitlines()
        names = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
        return sum(int(float(line.split()[1])) for line in lines if line.startswith(names))


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedGateway]:
    """Serve one gateway for all tests of the session."""
    pytest.importorskip("xllamacpp")
    engine = EmbeddedEngine(EmbeddedOptions(slots=8, context=2048))
    with serving_in_thread(create_app(Settings(confidence_window=WINDOW), EmbeddedUpstream(engine))) as url:
        yield EmbeddedGateway(url, engine)
