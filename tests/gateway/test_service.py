"""What the app knows of a model, and how it comes to know it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.config import ModelSettings, Settings
from gateway.errors import ModelNotFound, UpstreamUnreachable
from gateway.runs.run import Runner
from gateway.service import ResolvedModel, Service, describe_model
from gateway.upstreams.base import ModelCard
from gateway.upstreams.client import HTTPUpstream
from policies.families import Family, find_family
from policies.templates import probe_requests
from tests.fakes import ScriptedUpstream, says
from tests.stub_engine import Events, Json, StubEngine, stub_engine

OPENS, CLOSES = "<user>q<assistant><think>\n", "<user>q<assistant><think>\n\n</think>\n\n"


class Rendering(ScriptedUpstream):
    """An engine that renders chats by a template; `asked` are the requests it rendered, in order."""

    def __init__(self, template: Callable[[Mapping[str, Any]], str | None], *models: str) -> None:
        super().__init__(says("Hello."))
        self.template = template
        self.names = models or ("tiny",)
        self.asked: list[Mapping[str, Any]] = []
        self.down = False

    async def prompt_text(self, body: Mapping[str, Any]) -> str | None:
        """The template's prompt, a moment later."""
        self.asked.append(body)
        await asyncio.sleep(0)
        if self.down:
            raise UpstreamUnreachable("down")
        return self.template(body)

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """New cards each time, as an engine's list is read anew."""
        return {name: ModelCard(name, context=4096) for name in self.names}


def opening(body: Mapping[str, Any]) -> str:
    """A template that always opens a block."""
    return OPENS


def switched(body: Mapping[str, Any]) -> str:
    """A template with a switch that the generic row doesn't know."""
    return OPENS if (body.get("chat_template_kwargs") or {}).get("thinking", True) else CLOSES


def service_of(upstream: Any, settings: Settings | None = None) -> Service:
    """A service in front of this engine."""
    return Service(settings or Settings(), upstream, Runner(upstream))


async def family_of(service: Service, model: str = "tiny") -> Family:
    """The family that a request for this model would be shaped for."""
    return (await service.model(await service.resolve(model))).family


@asynccontextmanager
async def in_front_of(server: StubEngine) -> AsyncIterator[Service]:
    """A service in front of a scripted server."""
    upstream = HTTPUpstream(server.base_url)
    await upstream.start()
    try:
        yield service_of(upstream)
    finally:
        await upstream.close()


async def test_a_block_that_the_template_opens_is_known() -> None:
    """A name that says nothing, and a template that opens the block: the reply is read from inside it."""
    family = await family_of(service_of(Rendering(opening)))
    assert (family.opened_by, family.default, family.off_fallback) == ("template", "always", "prefill")


async def test_the_templates_own_switch_is_found() -> None:
    """Off is then the switch that works, instead of a request in the system prompt."""
    family = await family_of(service_of(Rendering(switched)))
    assert family.off is not None
    assert family.off.kwargs == {"thinking": False}
    assert family.default == "on"


async def test_the_template_beats_the_table() -> None:
    """A Qwen3 by name, whose template has another switch than Qwen3's."""
    family = await family_of(service_of(Rendering(switched, "qwen3-tuned")), "qwen3-tuned")
    assert family.off is not None
    assert family.off.kwargs == {"thinking": False}
    assert family.opened_by == "template"


async def test_the_operators_word_beats_the_template() -> None:
    """A family named in the settings, for all models or this one, is taken as it is; nothing is asked."""
    upstream = Rendering(opening)
    named = [
        Settings(family="qwen3"),
        Settings(family="mimo", models={"tin*": ModelSettings(family="qwen3")}),
    ]
    for settings in named:
        assert await family_of(service_of(upstream, settings)) == find_family("", explicit="qwen3")
    assert not upstream.asked


async def test_a_template_is_asked_once() -> None:
    """By many requests at once, and again after the model list was read anew."""
    upstream = Rendering(opening)
    service = service_of(upstream)
    families = await asyncio.gather(*(family_of(service) for _ in range(8)))
    assert {family.opened_by for family in families} == {"template"}
    assert (await family_of(service)).opened_by == "template"
    assert len(upstream.asked) == len(probe_requests(find_family("tiny")))


class Serving(ScriptedUpstream):
    """An engine that serves these."""

    def __init__(self, *cards: ModelCard) -> None:
        super().__init__(says("Hello."))
        self.cards = cards
        self.refreshes = 0

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """The cards by name."""
        self.refreshes += refresh
        return {card.name: card for card in self.cards}


@pytest.mark.parametrize(
    ("cards", "meant"),
    [
        ([ModelCard("a", "/models/a")], "a"),
        ([ModelCard("taught", "a"), ModelCard("judge", "a"), ModelCard("a", "a")], "taught"),
        ([ModelCard("a"), ModelCard("taught", "a")], "a"),
        ([ModelCard("a"), ModelCard("b")], None),
        ([ModelCard("taught", "a"), ModelCard("b")], None),
    ],
)
async def test_a_model_need_not_be_named_where_it_is_the_only_one(
    cards: list[ModelCard], meant: str | None
) -> None:
    """Of adapters of one base it is the one that is listed first; of several models none is meant."""
    service = service_of(Serving(*cards))
    if meant is None:
        with pytest.raises(ModelNotFound):
            await service.resolve("")
    else:
        assert (await service.resolve("")).name == meant


async def test_a_name_that_the_list_lacks_is_left_to_the_upstream() -> None:
    """It keeps its tag, loses a known suffix, and names what the list has for the case of a 404."""
    service = service_of(Serving(ModelCard("a"), ModelCard("b")))
    assert (await service.resolve("other:7b")).name == "other:7b"
    resolved = await service.resolve("other:high@4")
    assert (resolved.name, resolved.level, resolved.samples) == ("other", "high", 4)
    assert isinstance(resolved.not_served(), ModelNotFound)
    assert resolved.listed == ("a", "b")


async def test_a_key_limits_names_that_the_list_lacks_too() -> None:
    """Neither the upstream nor the refusal tells a key about models that it may not use."""
    service = service_of(Serving(ModelCard("a"), ModelCard("b")))
    assert (await service.resolve("b-new", ["b*"])).listed == ("b",)
    with pytest.raises(ModelNotFound, match="available: b\\."):
        await service.resolve("other", ["b*"])


async def test_a_name_without_a_tag_means_the_latest() -> None:
    """As in Ollama, whose list has tags only."""
    service = service_of(Serving(ModelCard("qwen3:latest"), ModelCard("qwen3:0.6b")))
    assert (await service.resolve("qwen3")).name == "qwen3:latest"
    resolved = await service.resolve("qwen3:low")
    assert (resolved.name, resolved.level) == ("qwen3:latest", "low")


async def test_an_unknown_name_has_the_list_read_again_at_most_once_a_second() -> None:
    """So that a name that no list has doesn't turn each request into two, nor do many such names."""
    upstream, now = Serving(ModelCard("a")), [0.0]
    service = Service(Settings(), upstream, Runner(upstream), clock=lambda: now[0])
    for _ in range(3):
        await service.resolve("new")
    assert upstream.refreshes == 1
    await service.resolve("other")
    assert upstream.refreshes == 2
    now[0] = 1.0
    await service.resolve("new")
    assert upstream.refreshes == 3
    for number in range(100):
        await service.resolve(f"name-{number}")
    assert upstream.refreshes < 12


async def test_unknown_names_are_not_remembered() -> None:
    """However many names clients try, what is known of models stays as small as the upstream's list."""
    service = service_of(Rendering(opening))
    for number in range(50):
        model = await service.model(await service.resolve(f"other-{number}"))
        assert model.name == f"other-{number}"
    assert not service._models
    assert not service._families


def test_a_models_own_answer_cap_beats_everybodys() -> None:
    """Without either, an answer is as long as the model makes it."""
    settings = Settings(answer_cap=100, models={"a*": ModelSettings(answer_cap=50)})
    caps = [describe_model(settings, ResolvedModel(name, None)).answer_cap for name in ("a", "b")]
    assert caps == [50, 100]
    assert describe_model(Settings(), ResolvedModel("a", None)).answer_cap is None


async def test_each_model_has_its_own_template() -> None:
    """One upstream, two models: every probe names its model."""
    upstream = Rendering(lambda body: OPENS if body["model"] == "a" else "<user>q<assistant>", "a", "b")
    service = service_of(upstream)
    assert (await family_of(service, "a")).opened_by == "template"
    assert (await family_of(service, "b")).opened_by == "model"


async def test_what_does_not_render_leaves_the_row() -> None:
    """After the first probe failed no other is tried, nor is that one again."""
    upstream = Rendering(lambda body: None)
    service = service_of(upstream)
    for _ in range(2):
        assert await family_of(service) == find_family("tiny")
    assert len(upstream.asked) == 1


async def test_a_server_that_never_renders_holds_up_one_request_only() -> None:
    """After a while the row has to do, for the requests to come as well."""
    async with stub_engine(owned_by="vllm") as server, in_front_of(server) as service:
        server.answers("/tokenize", Events([asyncio.Event()]))
        service.probe_seconds = 0.01
        assert await family_of(service) == find_family("tiny")
        await service.upstream.models(refresh=True)
        assert await family_of(service) == find_family("tiny")
        assert len(server.bodies("/tokenize")) <= 1


async def test_an_engine_that_is_down_is_asked_again() -> None:
    """The row holds for now; once the engine is there, its template is learned."""
    upstream = Rendering(opening)
    upstream.down = True
    service = service_of(upstream)
    assert (await family_of(service)).opened_by == "model"
    upstream.down = False
    assert (await family_of(service)).opened_by == "template"


async def test_a_model_that_does_not_think_is_not_probed() -> None:
    """No template could tell anything about one whose blocks the gateway opens."""
    upstream = Rendering(opening, "SmolLM2-135M-Instruct")
    assert (await family_of(service_of(upstream), "SmolLM2-135M-Instruct")).opened_by == "gateway"
    assert not upstream.asked


async def test_a_text_template_over_http() -> None:
    """llama.cpp's `/apply-template`."""
    async with stub_engine(owned_by="llamacpp") as server, in_front_of(server) as service:
        server.answers("/apply-template", Json({"prompt": OPENS}))
        assert (await family_of(service)).opened_by == "template"
        assert server.bodies("/apply-template")[0]["messages"][0]["role"] == "user"


async def test_a_template_in_token_ids_over_http() -> None:
    """vLLM's `/tokenize`, turned back by `/detokenize`."""
    async with stub_engine(owned_by="vllm") as server, in_front_of(server) as service:
        server.answers("/tokenize", Json({"tokens": [3, 1, 2]}))
        server.answers("/detokenize", Json({"prompt": OPENS}))
        assert (await family_of(service)).opened_by == "template"
        assert server.bodies("/detokenize")[0] == {"model": "tiny", "tokens": [3, 1, 2]}


async def test_a_server_without_the_route_is_asked_for_it_once() -> None:
    """One 404 a model, and none where the engine has no such route at all."""
    async with stub_engine(owned_by="vllm") as server, in_front_of(server) as service:
        for _ in range(3):
            assert await family_of(service) == find_family("tiny")
            await service.upstream.models(refresh=True)
        assert len(server.bodies("/tokenize")) == 1
        assert not server.bodies("/detokenize")
    async with stub_engine() as server, in_front_of(server) as service:
        await family_of(service)
        assert {path for path, _, _ in server.requests} == {"/v1/models"}
