"""Any engine that speaks OpenAI's HTTP dialect: vLLM, llama.cpp, SGLang, hosted ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.adapters import EngineAdapter, adapter_for
from gateway.upstreams.base import (
    Chunk,
    Completion,
    Endpoint,
    ModelCard,
    ModelTraits,
    Prompt,
    UpstreamRequest,
)
from gateway.upstreams.connections import send
from gateway.upstreams.folding import Folding
from gateway.upstreams.wire import chat_reply, connection_error, json_object, read_chunks, refusal

__all__ = ["HTTPUpstream"]

_LIMIT_REFUSED = re.compile(r"thinking_token_budget|reasoning_config|thinking_budget", re.IGNORECASE)
_MODELS_REMEMBERED = 1_000  # an upstream without a model list may be asked for any name


class HTTPUpstream:
    """Talks to one base URL (ending in `/v1`), with a key where the engine needs one.

    `idle_timeout` is how many seconds the engine may stay silent. The client asks once which kind of engine
    this is and which models it serves, and remembers the answer.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, idle_timeout: float = 600.0) -> None:
        self.connect_to(base_url, api_key)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle_timeout)
        self._session: aiohttp.ClientSession | None = None
        self._models: dict[str, ModelCard] = {}
        self._listing = asyncio.Lock()
        self._traits: dict[str, ModelTraits] = {}
        self._token_ids: dict[tuple[str, str], list[int]] = {}
        self.engine: EngineAdapter = adapter_for(None)

    def connect_to(self, base_url: str, api_key: str | None) -> None:
        """Set the address and key; call it before `start`."""
        self._base = base_url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def start(self) -> None:
        """Open the connection pool; the engine itself may come up later."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=self._timeout,
                auto_decompress=True,
            )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, request: UpstreamRequest) -> Completion:
        """Send one plain request; a streamed one if the engine would not notice a disconnect."""
        if not self.engine.notices_disconnect:
            folding = Folding()
            async with aclosing(self.stream(request)) as chunks:
                async for chunk in chunks:
                    folding.add(chunk)
            return Completion(folding.body())
        reply = await self._post_json(f"{self._base}/{request.endpoint}", request.body)
        if any(_has_thinking(choice.get("message") or {}) for choice in reply.get("choices") or ()):
            self.traits(_model_in(request.body)).splits_thinking = True
        return Completion(chat_reply(reply) if request.endpoint == "completions" else reply)

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Send one streamed request, which also asks for token counts in the engine's own way."""
        adapter, sent = self.engine, request.body
        options = {**(sent.get("stream_options") or {}), **adapter.stream_options}
        body = {**sent, "stream": True, "stream_options": options, **adapter.stream_fields}
        hide_ids = request.ids and adapter.token_ids_field not in (None, *sent)
        if hide_ids:
            body[str(adapter.token_ids_field)] = True
        opening = self._open(f"{self._base}/{request.endpoint}", body)
        return read_chunks(opening, adapter, self.traits(_model_in(sent)), hide_ids=hide_ids)

    async def relay(self, endpoint: Endpoint, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Pass one request on; nothing of it is read or changed."""
        try:
            async with self._open(f"{self._base}/{endpoint}", payload) as response:
                if response.status >= 400:
                    raise refusal(response.status, await response.read())
                async for block in response.content.iter_any():
                    yield block
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise connection_error(error) from error

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """Tokenize the rendered prompt as the engine's chat route does it."""
        prompt = await self.render(body)
        if not isinstance(prompt, str):
            return None if prompt is None else len(prompt)
        path, payload, key = self.engine.tokenize_prompt(_model_in(body), prompt)
        return len((await self._post_json(self._root + path, payload))[key])

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        """Render by the engine's own template, where it has a route for that."""
        if self.engine.render_path is None:
            return None
        try:
            reply = await self._post_json(self._root + self.engine.render_path, self.engine.render_body(body))
        except UpstreamUnreachable:
            raise
        except UpstreamError:
            return None  # an older engine, or a proxy that hides the route
        return self.engine.rendered(reply)

    async def prompt_text(self, body: Mapping[str, Any]) -> str | None:
        """Render the prompt; turn it back into text where the engine renders to token ids."""
        prompt = await self.render(body)
        if not isinstance(prompt, list):
            return prompt
        return await self.text_of(_model_in(body), prompt)

    async def resume(
        self, body: Mapping[str, Any], prompt: Prompt | None, prefix: str, max_tokens: int | None
    ) -> UpstreamRequest:
        """Continue the rendered prompt where there is one, else an open assistant message."""
        if prompt is None:
            return UpstreamRequest(self.engine.chat_prefix(body, prefix, max_tokens))
        if isinstance(prompt, list):
            path, payload, key = self.engine.tokenize(_model_in(body), prefix)
            reply = await self._post_json(self._root + path, payload)
            return UpstreamRequest(
                self.engine.completion(body, [*prompt, *reply[key]], max_tokens), "completions"
            )
        return UpstreamRequest(self.engine.completion(body, prompt + prefix, max_tokens), "completions")

    def traits(self, model: str) -> ModelTraits:
        """Return what was seen of the model so far."""
        traits = self._traits.get(model)
        if traits is None:
            if len(self._traits) >= _MODELS_REMEMBERED:
                self._traits.clear()  # what was learned is learned again
            traits = self._traits[model] = ModelTraits()
        traits.limit_field = self.engine.limit_field  # the engine behind the address may have changed
        traits.gives_token_ids = self.engine.token_ids_field is not None
        return traits

    def refuses_limit(self, model: str, error: UpstreamError) -> bool:
        """Look for a 4xx that names the field, or the configuration that the field needs."""
        if error.status not in {400, 404, 422, 501} or not _LIMIT_REFUSED.search(error.message):
            return False
        self.traits(model).observe_limit(False)
        return True

    async def token_ids(self, model: str, text: str) -> Sequence[int] | None:
        """Ask the engine's own tokenizer."""
        if self.engine.token_ids_field is None:
            return None
        known = self._token_ids.get((model, text))
        if known is None:
            path, payload, key = self.engine.tokenize(model, text)
            reply = await self._post_json(self._root + path, payload)
            known = self._token_ids[model, text] = list(reply[key])
        return known

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        """Ask the engine's own tokenizer."""
        path, payload, key = self.engine.detokenize(model, list(ids))
        try:
            text = (await self._post_json(self._root + path, payload)).get(key)
        except UpstreamUnreachable:
            raise
        except UpstreamError:
            return None
        return text if isinstance(text, str) else None

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """Ask `GET /v1/models`; an engine without that route serves no names that we could know."""
        if self._models and not refresh:
            return self._models
        async with self._listing:
            if self._models and not refresh:
                return self._models
            try:
                async with self._open(f"{self._base}/models", None, method="GET") as response:
                    payload = await response.read()
                    status = response.status
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise connection_error(error) from error
            if status in (404, 405, 501):
                return {}
            if status >= 400:
                raise refusal(status, payload)
            data = json_object(payload).get("data")
            entries = data if isinstance(data, list) else []
            listed = [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
            self.engine = adapter_for(next((entry.get("owned_by") for entry in listed), None))
            self._models = _with_parents({entry["id"]: self.engine.card(entry) for entry in listed})
            return self._models

    async def healthy(self) -> bool:
        """Tell whether the engine lists its models."""
        try:
            await self.models(refresh=True)
        except UpstreamError:
            return False
        return True

    @asynccontextmanager
    async def _open(
        self, url: str, body: Mapping[str, Any] | bytes | None, *, method: str = "POST"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the response to one request; leaving it early drops the connection, and so the request."""
        if self._session is None:
            raise UpstreamUnreachable(
                "The gateway is not connected to its upstream (not started, or closing)."
            )
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with await send(self._session, method, url, data=data) as response:
            yield response

    async def _post_json(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with self._open(url, body) as response:
                payload = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise connection_error(error) from error
        if status >= 400:
            raise refusal(status, payload)
        return json_object(payload)


def _model_in(body: Mapping[str, Any]) -> str:
    return str(body.get("model", ""))


def _has_thinking(message: Mapping[str, Any]) -> bool:
    return bool(message.get("reasoning_content") or message.get("reasoning"))


def _with_parents(cards: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
    """Return the cards; one that names a parent (in vLLM an adapter) has that parent's base and context."""
    return {name: _with_parent(card, cards.get(str(card.raw.get("parent")))) for name, card in cards.items()}


def _with_parent(card: ModelCard, parent: ModelCard | None) -> ModelCard:
    if parent is None or parent.name == card.name:
        return card
    return replace(card, base=parent.base or parent.name, context=card.context or parent.context)
