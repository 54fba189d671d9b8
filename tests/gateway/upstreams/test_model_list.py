"""The list of an upstream's models: one probe at a time, and an answer at once where there was one before."""

import asyncio
import time
from collections.abc import Mapping

import pytest

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.base import ModelCard
from gateway.upstreams.model_list import ModelList

TINY = {"tiny": ModelCard("tiny")}


class Engine:
    """An engine's model list: it answers with `reply`, or hangs where that is None."""

    def __init__(self) -> None:
        self.reply: Mapping[str, ModelCard] | UpstreamError | None = TINY
        self.asked = 0
        self.running = 0
        self.most_at_once = 0

    async def list(self) -> Mapping[str, ModelCard]:
        """Answer one probe."""
        self.asked += 1
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            if self.reply is None:
                await asyncio.Event().wait()
        finally:
            self.running -= 1
        if isinstance(self.reply, UpstreamError):
            raise self.reply
        return self.reply or {}


async def test_a_list_is_read_once_and_again_on_demand() -> None:
    """Names that are known cost no request."""
    engine = Engine()
    models = ModelList(engine.list)
    for _ in range(3):
        assert await models.cards(refresh=False) is TINY
    assert engine.asked == 1
    await models.cards(refresh=True)
    assert engine.asked == 2


async def test_a_failed_or_hanging_list_leaves_the_known_names() -> None:
    """A chat request for a known name goes on, and at once."""
    engine = Engine()
    models = ModelList(engine.list)
    await models.cards(refresh=False)
    for reply in (UpstreamUnreachable("away"), None):
        engine.reply = reply
        started = time.monotonic()
        assert await models.cards(refresh=True) is TINY
        assert await models.cards(refresh=False) is TINY
        assert time.monotonic() - started < 1
    await models.close()


async def test_only_one_probe_is_under_way() -> None:
    """However many callers wait for it."""
    engine = Engine()
    models = ModelList(engine.list)
    await models.healthy()
    engine.reply = None
    assert all(await asyncio.gather(*(models.healthy() for _ in range(50))))
    assert engine.most_at_once == 1
    await models.close()
    assert engine.running == 0


async def test_a_slow_list_does_not_make_a_healthy_upstream_ill() -> None:
    """It is busy; an upstream that never answered is not healthy."""
    engine = Engine()
    busy, silent = ModelList(engine.list), ModelList(engine.list)
    assert await busy.healthy()
    engine.reply = None
    assert await busy.healthy()
    assert not await silent.healthy()
    silent.answered()  # to a chat request
    assert await silent.healthy()
    await busy.close()
    await silent.close()


async def test_an_upstream_that_went_away_is_ill_at_once_and_well_at_once() -> None:
    """Neither takes longer than a probe."""
    engine = Engine()
    models = ModelList(engine.list)
    assert await models.healthy()
    engine.reply = UpstreamUnreachable("refused")
    assert not await models.healthy()
    engine.reply = TINY
    assert await models.healthy()


async def test_the_upstream_is_found_within_two_seconds_after_a_probe_hung() -> None:
    """A probe has a limit of its own."""
    engine = Engine()
    engine.reply = None
    models = ModelList(engine.list)
    started = time.monotonic()
    assert not await models.healthy()
    engine.reply = TINY
    assert await models.healthy()
    assert time.monotonic() - started < 2


async def test_an_upstream_whose_list_hangs_may_still_be_asked() -> None:
    """No names are known, as without a list; only who asks for the list itself gets the error."""
    engine = Engine()
    engine.reply = None
    models = ModelList(engine.list)
    assert await models.cards(refresh=False) == {}
    with pytest.raises(UpstreamError) as error:
        await models.cards(refresh=True)
    assert error.value.status == 504
    started = time.monotonic()
    assert await models.cards(refresh=False) == {}
    assert time.monotonic() - started < 0.5
    await models.close()


async def test_an_upstream_that_refuses_its_list_may_still_be_asked() -> None:
    """A broken or forbidden list is no reason to refuse a chat; the upstream's answer to it counts."""
    engine = Engine()
    engine.reply = UpstreamError(502, "no list for you")
    models = ModelList(engine.list)
    assert await models.cards(refresh=False) == {}
    with pytest.raises(UpstreamError, match="no list for you"):
        await models.cards(refresh=True)
    engine.reply = TINY
    assert await models.cards(refresh=False) is TINY


async def test_an_upstream_that_is_away_from_the_start_is_an_error() -> None:
    """Its own error says why."""
    engine = Engine()
    engine.reply = UpstreamUnreachable("away")
    with pytest.raises(UpstreamUnreachable, match="away"):
        await ModelList(engine.list).cards(refresh=False)
