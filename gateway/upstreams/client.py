"""Any engine that speaks OpenAI's HTTP dialect: vLLM, llama.cpp, SGLang, hosted ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import orjson

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.adapters import EngineAdapter, adapter_for, with_parents
from gateway.upstreams.base import Chunk, Completion, Endpoint, ModelCard, Prompt, UpstreamRequest
from gateway.upstreams.connections import request
from gateway.upstreams.folding import Folding
from gateway.upstreams.sse import EventParser

__all__ = ["HTTPUpstream"]

_LIMIT_REFUSED = re.compile(r"thinking_token_budget|reasoning_config|thinking_budget", re.IGNORECASE)


class HTTPUpstream:
    """Talks to one base URL (ending in `/v1`), with a key where one is needed.

    `idle_timeout` is how many seconds the engine may stay silent. What kind of engine it is
    and which models it serves is asked once and remembered.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, idle_timeout: float = 600.0) -> None:
        self.connect_to(base_url, api_key)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle_timeout)
        self._session: aiohttp.ClientSession | None = None
        self._models: dict[str, ModelCard] = {}
        self._listing = asyncio.Lock()
        self._keeps_limit: dict[Any, bool] = {}  # by model, what was seen of its native limits
        self._token_ids: dict[tuple[str, str], list[int]] = {}
        self._splits: set[Any] = set()  # models whose thinking the engine was seen to split off
        self.engine: EngineAdapter = adapter_for(None)

    def connect_to(self, base_url: str, api_key: str | None) -> None:
        """Sets the address and key; to be done before `start`."""
        self._base = base_url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def start(self) -> None:
        """Opens the connection pool; the engine itself may come up later."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=self._timeout,
                auto_decompress=True,
            )

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, plan: UpstreamRequest) -> Completion:
        """One plain request; a streamed one where the engine would not notice that it was dropped."""
        if not self.engine.notices_hang_up:
            folding = Folding()
            async with aclosing(self.stream(plan)) as chunks:
                async for chunk in chunks:
                    folding.add(chunk)
            return Completion(folding.body())
        reply = await self._post_json(f"{self._base}/{plan.endpoint}", plan.body)
        if any(_thinking(choice.get("message") or {}) for choice in reply.get("choices") or ()):
            self._splits.add(plan.body.get("model"))
        return Completion(self.engine.chat_body(reply) if plan.endpoint == "completions" else reply)

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """One streamed request; counts of tokens are asked for in the engine's own way."""
        model = plan.body.get("model")
        body = self.engine.counting({**plan.body, "stream": True})
        hidden = plan.ids and self.engine.token_ids_field not in (None, *plan.body)
        if hidden:
            body[str(self.engine.token_ids_field)] = True
        try:
            async with self._open(f"{self._base}/{plan.endpoint}", body) as response:
                if response.status >= 400:
                    raise _upstream_error(response.status, await response.read())
                parser = EventParser()
                async for block in response.content.iter_any():
                    for payload in parser.feed(block):
                        if payload == b"[DONE]":
                            return
                        event = _event(payload)
                        chunks = self.engine.chunks(event)
                        if hidden:
                            _hide_ids(event)
                        for chunk in chunks:
                            if chunk.reasoning:
                                self._splits.add(model)
                            yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        raise UpstreamUnreachable("The upstream ended its stream before it was complete.")

    async def relay(self, endpoint: Endpoint, payload: bytes) -> AsyncGenerator[bytes, None]:
        """One request, nothing of it read or changed."""
        try:
            async with self._open(f"{self._base}/{endpoint}", payload) as response:
                if response.status >= 400:
                    raise _upstream_error(response.status, await response.read())
                async for block in response.content.iter_any():
                    yield block
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """By the rendered prompt, tokenized as the engine's chat route does it."""
        prompt = await self.render(body)
        if not isinstance(prompt, str):
            return None if prompt is None else len(prompt)
        path, request, key = self.engine.tokenize_prompt(str(body.get("model", "")), prompt)
        return len((await self._post_json(self._root + path, request))[key])

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        """By the engine's own template, where it has a route for that."""
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
        """The rendered prompt, turned back into text where the engine renders to token ids."""
        prompt = await self.render(body)
        if not isinstance(prompt, list):
            return prompt
        return await self.text_of(str(body.get("model", "")), prompt)

    async def resume(
        self, body: Mapping[str, Any], prompt: Prompt | None, prefix: str, max_tokens: int | None
    ) -> UpstreamRequest:
        """By the rendered prompt where there is one, else by an open assistant message."""
        if prompt is None:
            return UpstreamRequest(self.engine.chat_prefix(body, prefix, max_tokens))
        if isinstance(prompt, list):
            path, request, key = self.engine.tokenize(str(body.get("model", "")), prefix)
            reply = await self._post_json(self._root + path, request)
            return UpstreamRequest(
                self.engine.completion(body, [*prompt, *reply[key]], max_tokens), "completions"
            )
        return UpstreamRequest(self.engine.completion(body, prompt + prefix, max_tokens), "completions")

    def native_limit(self, body: Mapping[str, Any], limit: int) -> Mapping[str, Any] | None:
        """The engine's own field, unless it has refused or ignored it for this model."""
        if self._keeps_limit.get(body.get("model")) is False:
            return None
        return self.engine.native_limit(limit)

    def refuses_limit(self, body: Mapping[str, Any], error: UpstreamError) -> bool:
        """A 4xx that speaks of the field, or of the configuration that it needs."""
        if error.status not in {400, 404, 422, 501} or not _LIMIT_REFUSED.search(error.message):
            return False
        self.limit_kept(body, False)
        return True

    def limit_kept(self, body: Mapping[str, Any], kept: bool) -> None:
        """One limit ignored, and from then on the gateway keeps this model's limits."""
        if not kept or body.get("model") not in self._keeps_limit:
            self._keeps_limit[body.get("model")] = kept

    def proven_limit(self, body: Mapping[str, Any]) -> bool:
        """By what was seen so far."""
        return self._keeps_limit.get(body.get("model"), False)

    async def token_ids(self, model: str, text: str) -> Sequence[int] | None:
        """By the engine's own tokenizer."""
        if self.engine.token_ids_field is None:
            return None
        known = self._token_ids.get((model, text))
        if known is None:
            path, request, key = self.engine.tokenize(model, text)
            reply = await self._post_json(self._root + path, request)
            known = self._token_ids[model, text] = list(reply[key])
        return known

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        """By the engine's own tokenizer."""
        path, request, key = self.engine.detokenize(model, list(ids))
        try:
            text = (await self._post_json(self._root + path, request)).get(key)
        except UpstreamUnreachable:
            raise
        except UpstreamError:
            return None
        return text if isinstance(text, str) else None

    def splits_thinking(self, body: Mapping[str, Any]) -> bool:
        """By what was seen so far."""
        return body.get("model") in self._splits

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """`GET /v1/models`; an engine without that route serves no names we could know."""
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
                raise self._unreachable(error) from error
            if status in (404, 405, 501):
                return {}
            if status >= 400:
                raise _upstream_error(status, payload)
            data = _json(payload).get("data")
            entries = data if isinstance(data, list) else []
            listed = [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
            self.engine = adapter_for(next((entry.get("owned_by") for entry in listed), None))
            self._models = with_parents({entry["id"]: self.engine.card(entry) for entry in listed})
            return self._models

    async def healthy(self) -> bool:
        """Whether the model list can be had."""
        try:
            await self.models(refresh=True)
        except UpstreamError:
            return False
        return True

    @asynccontextmanager
    async def _open(
        self, url: str, body: Mapping[str, Any] | bytes | None, *, method: str = "POST"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to one request; leaving it before its end drops the connection, and so the request."""
        if self._session is None:
            raise UpstreamUnreachable(
                "The gateway is not connected to its upstream (not started, or closing)."
            )
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with await request(self._session, method, url, data=data) as response:
            yield response

    async def _post_json(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with self._open(url, body) as response:
                payload = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if status >= 400:
            raise _upstream_error(status, payload)
        return _json(payload)

    def _unreachable(self, error: Exception) -> UpstreamUnreachable:
        if isinstance(error, TimeoutError):
            return UpstreamUnreachable("The upstream took too long to answer.", status=504)
        if isinstance(error, aiohttp.ClientConnectorError):
            return UpstreamUnreachable("The upstream can't be reached; is it running?")
        return UpstreamUnreachable(f"The connection to the upstream broke off ({type(error).__name__}).")


def _json(payload: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UpstreamUnreachable("The upstream's reply is not JSON.") from error
    if not isinstance(value, dict):
        raise UpstreamUnreachable("The upstream's reply is not a JSON object.")
    return value


def _event(payload: bytes) -> dict[str, Any]:
    value = _json(payload)
    error = value.get("error")
    if error is not None:  # engines report a failure in mid-stream as an event
        details = error if isinstance(error, dict) else {"message": str(error)}
        code = details.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        raise UpstreamError(status, str(details.get("message", "The upstream failed.")), details)
    return value


def _thinking(message: Mapping[str, Any]) -> bool:
    return bool(message.get("reasoning_content") or message.get("reasoning"))


def _hide_ids(event: dict[str, Any]) -> None:
    """Takes out what only the gateway had asked for."""
    for part in (event, *(event.get("choices") or ())):
        part.pop("token_ids", None)
        part.pop("prompt_token_ids", None)


def _upstream_error(status: int, payload: bytes) -> UpstreamError:
    """The engine's refusal; its body may be OpenAI's shape, FastAPI's `detail`, or plain text."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        value = {"message": payload[:500].decode("utf-8", "replace")}
    error = value.get("error", value) if isinstance(value, dict) else {"message": str(value)}
    if not isinstance(error, dict):
        error = {"message": str(error)}
    message = error.get("message") or error.get("detail") or f"The upstream answered {status}."
    if status in {401, 403}:  # the gateway's own key was refused, not the client's
        return UpstreamError(502, f"The upstream refused the gateway's key ({status}).")
    known = {key: error[key] for key in ("type", "param", "code") if error.get(key) is not None}
    return UpstreamError(status, str(message), known)
