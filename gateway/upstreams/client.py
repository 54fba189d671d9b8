"""Any engine that speaks OpenAI's HTTP dialect: vLLM, llama.cpp, SGLang, hosted ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
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
    UpstreamLimits,
    UpstreamRequest,
)
from gateway.upstreams.blackout import KeyBlackout
from gateway.upstreams.checks import json_object, token_ids
from gateway.upstreams.connections import KEEP_IDLE, send
from gateway.upstreams.failures import broken_connection, passed_headers, refusal
from gateway.upstreams.folding import Folding
from gateway.upstreams.model_list import ModelList, read_models
from gateway.upstreams.relay import RelayedStream, check_whole, choices_of
from gateway.upstreams.reply import Reply, ReplyLimits, Silence, SilenceClock
from gateway.upstreams.sse import EventParser
from gateway.upstreams.whole_replies import check_reply
from gateway.upstreams.wire import ChunkReader, choices_in, read_chunks

__all__ = ["HTTPUpstream"]

_LIMIT_REFUSED = re.compile(r"thinking_token_budget|reasoning_config|thinking_budget", re.IGNORECASE)
_MODELS_REMEMBERED = 1_000  # an upstream without a model list may be asked for any name
_TEXTS_REMEMBERED = 1_000
_ERROR_SECONDS = 5.0  # for the body of an error, whose status is known already
_ERROR_BYTES = 2**20
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")

Body = Mapping[str, Any] | bytes | None
Again = Callable[[UpstreamError], Body]
"""Returns the body to send in place of one that was refused; None: there is none."""


class HTTPUpstream:
    """Talks to one base URL (ending in `/v1`), with a key where the engine needs one.

    `limits` bound what is read from it. The client asks once which kind of engine this is and which models it
    serves, and remembers the answer.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, limits: UpstreamLimits | None = None
    ) -> None:
        self.limits = limits or UpstreamLimits()
        self.connect_to(base_url, api_key)
        self._session: aiohttp.ClientSession | None = None
        self._clock = SilenceClock(self.limits)
        self._models = ModelList(self._list_models)
        self._listed: dict[str, ModelCard] = {}
        self._traits: dict[str, ModelTraits] = {}
        self._token_ids: dict[tuple[str, str], list[int]] = {}
        self.engine: EngineAdapter = adapter_for(None)

    def connect_to(self, base_url: str, api_key: str | None) -> None:
        """Set the address and key; call it before `start`."""
        self._base = base_url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}
        self._blackout = KeyBlackout(api_key)
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def start(self) -> None:
        """Open the connection pool; the engine itself may come up later."""
        if self._session is None:
            connect, header_bytes = self.limits.connect_timeout, self.limits.max_header_bytes
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
                auto_decompress=False,
                max_line_size=header_bytes,
                max_field_size=header_bytes,
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._models.close()
        self._clock.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def notices(self) -> Mapping[str, Any]:
        """Return nothing: the engine is somebody else's."""
        return {}

    async def complete(self, request: UpstreamRequest) -> Completion:
        """Send one plain request; a streamed one if the engine would not notice a disconnect."""
        if not self.engine.notices_disconnect:
            return await self._fold(request)
        choices, text = choices_in(request), request.endpoint == "completions"
        limits = ReplyLimits(self.limits, choices=choices, logprobs=bool(request.body.get("logprobs")))
        payload, headers = await self._post(f"{self._base}/{request.endpoint}", request.body, limits)
        if payload.startswith(_EVENT_STARTS):  # it streams although nobody asked
            return self._folded(payload, request, choices, headers)
        completion = check_reply(json_object(payload), choices, text=text, headers=headers)
        if any(_has_thinking(choice["message"]) for choice in completion.body["choices"]):
            self.traits(_model_in(request.body)).splits_thinking = True
        return completion

    async def _fold(self, request: UpstreamRequest) -> Completion:
        folding = Folding()
        async with aclosing(self.stream(replace(request, verbatim=False))) as chunks:
            async for chunk in chunks:
                folding.add(chunk)
        return Completion(folding.body(), folding.failures, listed=frozenset(folding.listed))

    def _folded(
        self, events: bytes, request: UpstreamRequest, choices: int, headers: Mapping[str, str]
    ) -> Completion:
        """Return the whole reply that a stream's events make. Raises `UpstreamError`."""
        traits = self.traits(_model_in(request.body))
        reader = ChunkReader(self.engine, traits, choices, text=request.endpoint == "completions")
        parser, folding = EventParser(self.limits.max_event_bytes), Folding()
        for payload in (*parser.feed(events), *parser.end()):
            if payload.strip() == b"[DONE]":
                break
            for chunk in reader.read(payload):
                folding.add(chunk)
        for chunk in reader.end():
            folding.add(chunk)
        return Completion(folding.body(), folding.failures, headers, frozenset(folding.listed))

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Send one streamed request, which also asks for token counts in the engine's own way.

        An engine that refuses `stream_options` gets the request again without, and from then on never.
        """
        adapter, sent, traits = self.engine, request.body, self.traits(_model_in(request.body))
        body, hide_ids = {**sent, "stream": True}, False
        if not request.verbatim:
            options = sent.get("stream_options")
            own = options if isinstance(options, dict) else {}
            body |= {"stream_options": {**own, **adapter.stream_options}, **adapter.stream_fields}
            hide_ids = request.ids and adapter.token_ids_field not in (None, *sent)
        if hide_ids:
            body[str(adapter.token_ids_field)] = True
        if not traits.takes_stream_options:
            body.pop("stream_options", None)

        def without_options(error: UpstreamError) -> Body:
            named = "stream_options" in error.message or "stream_options" in str(error.error)
            if "stream_options" not in body or not named or error.status not in {400, 404, 422, 501}:
                return None
            traits.takes_stream_options = False
            return {name: value for name, value in body.items() if name != "stream_options"}

        choices = choices_in(request)
        limits = ReplyLimits(self.limits, choices=choices, logprobs=bool(sent.get("logprobs")), streamed=True)
        reader = ChunkReader(
            adapter,
            traits,
            choices,
            text=request.endpoint == "completions",
            hide_ids=hide_ids,
            blackout=self._blackout,
        )
        opening = self._open(f"{self._base}/{request.endpoint}", body, limits=limits, again=without_options)
        return read_chunks(opening, reader, EventParser(self.limits.max_event_bytes))

    async def relay(
        self,
        endpoint: Endpoint,
        payload: bytes,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Pass one request on, and its reply in whole events. What fails in it is raised."""
        body = orjson.loads(payload)
        choices, streamed = choices_of(body), bool(body.get("stream"))
        limits = ReplyLimits(
            self.limits, choices=choices, logprobs=body.get("logprobs") is not None, streamed=streamed
        )
        async with self._open(f"{self._base}/{endpoint}", payload, limits=limits) as reply:
            if on_headers is not None:
                on_headers(self._passed_headers(reply))
            block = await reply.next()
            if not streamed or block.lstrip()[:1] in (b"{", b"[", b"<"):
                whole = self._blackout.payload(block + await reply.whole())
                check_whole(json_object(whole))
                yield whole
                return
            stream = RelayedStream(choices, self._blackout, self.limits.max_event_bytes)
            while block:
                if events := stream.feed(block):
                    reply.silence.token = reply.silence.token or b"data:" in events
                    yield events
                if stream.done:
                    return
                block = await reply.next()
            if events := stream.end():
                yield events

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """Tokenize the rendered prompt as the engine's chat route does it."""
        prompt = await self.render(body)
        if not isinstance(prompt, str):
            return None if prompt is None else len(prompt)
        tokens = await self._asked(self.engine.tokenize_prompt(_model_in(body), prompt))
        return len(tokens) if isinstance(tokens, list) else None

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        """Render by the engine's own template, where it has a route for that."""
        if self.engine.render_path is None:
            return None
        try:
            reply, _ = await self._post_json(
                self._root + self.engine.render_path, self.engine.render_body(body)
            )
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
            tokens = token_ids(await self._asked(self.engine.tokenize(_model_in(body), prefix)))
            if prefix and not tokens:
                raise UpstreamUnreachable("The upstream's tokenizer returned no tokens.")
            return UpstreamRequest(
                self.engine.completion(body, [*prompt, *tokens], max_tokens), "completions"
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
            known = token_ids(await self._asked(self.engine.tokenize(model, text)))
            if len(self._token_ids) >= _TEXTS_REMEMBERED:
                self._token_ids.clear()
            if known:
                self._token_ids[model, text] = known
        return known or None

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        """Ask the engine's own tokenizer."""
        try:
            text = await self._asked(self.engine.detokenize(model, list(ids)))
        except UpstreamUnreachable:
            raise
        except UpstreamError:
            return None
        return text if isinstance(text, str) else None

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """Return the names in `GET /v1/models`; an engine without that route serves none that we know.

        An earlier list stands in for one that fails or is slow.
        """
        return await self._models.cards(refresh=refresh)

    async def healthy(self) -> bool:
        """Tell whether the engine lists its models, or has answered lately and is only slow."""
        return await self._models.healthy()

    async def _list_models(self) -> Mapping[str, ModelCard]:
        try:
            async with self._open(f"{self._base}/models", None, method="GET") as reply:
                payload = self._blackout.payload(await reply.whole())
        except UpstreamError as error:
            if error.status in (404, 405, 501):
                return {}
            raise
        engine, cards = read_models(payload)
        if engine is not self.engine or self._listed.keys().isdisjoint(cards):
            for traits in self._traits.values():
                traits.takes_stream_options = True  # another engine; learned again
        self.engine, self._listed = engine, cards
        return cards

    @asynccontextmanager
    async def _open(
        self,
        url: str,
        body: Body,
        *,
        method: str = "POST",
        limits: ReplyLimits | None = None,
        again: Again | None = None,
    ) -> AsyncIterator[Reply]:
        """Open the reply to one request; leaving it early drops the connection, and so the request.

        Raises `UpstreamError` for every status but 2xx. `again` may know another body for a refused one.
        """
        limits = limits or ReplyLimits(self.limits)
        while True:
            silence = self._clock.watch(limits)
            try:
                async with await self._send(method, url, self._payload(url, body), silence) as response:
                    reply = Reply(response, limits, silence)
                    try:
                        if 200 <= reply.status < 300 and reply.status != 204:
                            self._models.answered()
                            yield reply
                            return
                        error = await self._refusal(reply)
                    finally:
                        if limits.streamed and not self.engine.keeps_connection:
                            response.close()
            finally:
                silence.stop()
            body = None if again is None else again(error)
            if body is None:
                raise error

    async def _send(
        self, method: str, url: str, data: bytes | None, silence: Silence
    ) -> aiohttp.ClientResponse:
        """Send a request and return the reply's head."""
        if self._session is None:
            raise UpstreamUnreachable(
                "The gateway is not connected to its upstream (not started, or closing)."
            )
        try:
            return await send(self._session, method, url, data=data)
        except asyncio.CancelledError:
            if silence.owns(asyncio.current_task()) and silence.error is not None:
                raise silence.error from None
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise broken_connection(error, self.limits) from error

    def _payload(self, url: str, body: Body) -> bytes | None:
        """Return a request's bytes."""
        return body if body is None or isinstance(body, bytes) else orjson.dumps(body)

    async def _refusal(self, reply: Reply) -> UpstreamError:
        """Return the error of a reply that isn't a 2xx; its body may be missing or cut."""
        payload = b""
        reply.silence.shorten(_ERROR_SECONDS)
        try:
            while len(payload) < _ERROR_BYTES and (block := await reply.next()):
                payload += block
        except UpstreamUnreachable:
            payload = payload or b""
        return refusal(reply.status, self._blackout.payload(payload), self._passed_headers(reply))

    def _passed_headers(self, reply: Reply) -> dict[str, str]:
        headers = passed_headers(reply.headers)
        return {name: self._blackout.text(value) for name, value in headers.items()} if headers else headers

    async def _asked(self, question: tuple[str, dict[str, Any], str]) -> Any:
        """Ask one of the engine's own routes (path, body, key of the reply); return the value there."""
        path, body, key = question
        reply, _ = await self._post_json(self._root + path, body)
        return reply.get(key)

    async def _post_json(
        self, url: str, body: Mapping[str, Any], limits: ReplyLimits | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the JSON object of a reply, and the headers that a client should see."""
        payload, headers = await self._post(url, body, limits)
        return json_object(payload), headers

    async def _post(
        self, url: str, body: Mapping[str, Any], limits: ReplyLimits | None
    ) -> tuple[bytes, dict[str, str]]:
        async with self._open(url, body, limits=limits) as reply:
            payload, headers = await reply.whole(), self._passed_headers(reply)
        return self._blackout.payload(payload), headers


def _model_in(body: Mapping[str, Any]) -> str:
    return str(body.get("model", ""))


def _has_thinking(message: Mapping[str, Any]) -> bool:
    return bool(message.get("reasoning_content") or message.get("reasoning"))
