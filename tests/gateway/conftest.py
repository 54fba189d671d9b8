"""The real embedded engine, one for all tests that are marked `embedded`."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions


@pytest.fixture(scope="session")
def engine() -> Iterator[EmbeddedEngine]:
    """A running engine of four slots; its address is good for any event loop."""
    pytest.importorskip("xllamacpp")
    engine = EmbeddedEngine(EmbeddedOptions(slots=4, context=1024))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(engine.start())
        yield engine
        runner.run(engine.close())
