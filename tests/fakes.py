"""The scripted upstream of the tests, and small helpers for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.budget import read_sampling
from gateway.runs.events import Event, Finished, RunResult
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from gateway.runs.run import Runner
from gateway.runs.voting import VoteSettings
from gateway.upstreams.base import Chunk, Completion, ModelCard, ModelTraits, Prompt, UpstreamRequest
from policies.families import find_family

__all__ = [
    "MODEL",
    "Script",
    "ScriptedUpstream",
    "Text",
    "call",
    "calls",
    "failure_of",
    "groups",
    "request_for",
    "run_to_end",
    "says",
    "text",
    "thinks",
    "until",
    "vote_for",
]

MODEL = "tiny"


async def until(condition: Callable[[], Any], what: str = "the condition", seconds: float = 10.0) -> None:
    """Wait until `condition()` holds; fail if it doesn't within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Text:
    """One chunk: its texts, their number of tokens, and further fields of the delta and the choice."""

    content: str = ""
    reasoning: str = ""
    tokens: int = 1
    delta: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)


Step = Text | asyncio.Event | UpstreamError


@dataclass(frozen=True)
class Script:
    """The steps of one choice: it sends text, waits for an event or raises an error.

    `finish` is its finish reason; with None the reply just ends. A reason that is none of a complete or cut
    answer makes the choice a failure, as the gate of a real upstream does. `choice` holds further fields
    of the last chunk, such as vLLM's `stop_reason`.
    """

    steps: tuple[Step, ...]
    finish: str | None = "stop"
    choice: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Count the tokens of the whole reply."""
        return sum(step.tokens for step in self.steps if isinstance(step, Text))


def text(content: str, **fields: Any) -> Text:
    """Return a chunk of answer text."""
    return Text(content, **fields)


def failure_of(finish: str | None) -> UpstreamError | None:
    """Return the failure that a finish reason means, if it means one."""
    if finish in (None, "stop", "length", "tool_calls", "function_call"):
        return None
    status = 400 if finish == "content_filter" else 502
    return UpstreamError(status, f"The upstream ended the reply with {finish!r}.", {"code": finish})


def says(*steps: str | Step, finish: str | None = "stop", **choice: Any) -> Script:
    """Return the script of a reply from chunks, gates and failures; a bare string is one token."""
    return Script(tuple(Text(s) if isinstance(s, str) else s for s in steps), finish, choice)


def call(index: int, arguments: str, call_id: str | None = None) -> Text:
    """Return a chunk with a part of a tool call; as with engines, only the first has the id and name."""
    head = {} if call_id is None else {"id": call_id, "type": "function"}
    function = {"arguments": arguments} if call_id is None else {"name": "weather", "arguments": arguments}
    return Text(delta={"tool_calls": [{"index": index, **head, "function": function}]})


def calls() -> Script:
    """Return a reply that says a few words and then calls a tool twice, the first time in several chunks."""
    return says(
        "Let me see.",
        call(0, "", "call_1"),
        call(0, '{"city": '),
        call(0, '"Ulm"}'),
        call(1, '{"city": "Jena"}', "call_2"),
        finish="tool_calls",
    )


def thinks(count: int, answer: str = "The answer is 7.", *, close: bool = True) -> Script:
    """Return a reply with `count` tokens of thinking between tags, then the answer."""
    tags = (Text("<think>"), *(Text(f"step{i} ") for i in range(count)))
    return Script((*tags, *((Text("</think>"), Text(answer)) if close else ())))


class ScriptedUpstream:
    """An engine with scripted replies.

    Each upstream request takes the next script, and a request for n choices the next n. The last script
    serves all further requests. Requests that continue a prefix take theirs from `continuations`.
    `plans` holds the requests in order. `open` counts the running ones, and `dropped` those that the caller
    closed before their end.

    With `counts`, every chunk reports the number of generated tokens. With `usage`, the end of the reply
    does. With `renders`, the engine can render a chat, so that a reply can continue as a completion. With
    `strict`, a model that is not listed is a 404.
    """

    def __init__(
        self,
        *scripts: Script,
        continuations: Sequence[Script] = (),
        counts: bool = True,
        usage: bool = True,
        renders: bool = True,
        refuses_n: bool = False,
        strict: bool = False,
        prompt_tokens: int = 10,
        models: Mapping[str, ModelCard] | None = None,
    ) -> None:
        self._scripts = deque(scripts)
        self._continuations = deque(continuations or [says("The answer is 7.")])
        self._continuing: list[UpstreamRequest] = []
        self._counts, self._usage, self._renders = counts, usage, renders
        self._refuses_n, self._prompt_tokens = refuses_n, prompt_tokens
        self._strict = strict
        self._served = (
            {MODEL: ModelCard(MODEL, context=32768, raw={"id": MODEL})} if models is None else models
        )
        self.plans: list[UpstreamRequest] = []
        self.resumed: list[str] = []
        self.open = 0
        self.dropped = 0
        self.healthy_now = True
        self.headers: Mapping[str, str] = {}

    @property
    def bodies(self) -> list[Mapping[str, Any]]:
        """Return the bodies of all requests so far."""
        return [plan.body for plan in self.plans]

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        scripts = self._take(plan)
        with self._running():
            async for chunk in self._play(scripts):
                yield chunk

    async def complete(self, plan: UpstreamRequest) -> Completion:
        scripts = self._take(plan)
        with self._running():
            choices = [await self._whole(place, script) for place, script in enumerate(scripts)]
        usage = {"usage": self._usage_of(scripts)} if self._usage else {}
        failures = {
            place: failure
            for place, script in enumerate(scripts)
            if (failure := failure_of(script.finish)) is not None
        }
        body = {**self._head("chat.completion"), "choices": choices, **usage}
        return Completion(body, failures, self.headers)

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        return "<rendered>" if self._renders else None

    async def prompt_text(self, body: Mapping[str, Any]) -> str | None:
        return None

    async def resume(
        self, body: Mapping[str, Any], prompt: Prompt | None, prefix: str, max_tokens: int | None
    ) -> UpstreamRequest:
        self.resumed.append(prefix)
        rest = {key: value for key, value in body.items() if key != "messages"}
        if prompt is None:
            messages = [*body["messages"], {"role": "assistant", "content": prefix}]
            plan = UpstreamRequest({**rest, "messages": messages, "max_tokens": max_tokens})
        else:
            plan = UpstreamRequest(
                {**rest, "prompt": f"{prompt}{prefix}", "max_tokens": max_tokens}, "completions"
            )
        self._continuing.append(plan)
        return plan

    def traits(self, model: str) -> ModelTraits:
        return ModelTraits()

    def refuses_limit(self, model: str, error: UpstreamError) -> bool:
        return False

    async def token_ids(self, model: str, text: str) -> Sequence[int] | None:
        return None

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        return None

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        return self._served

    async def healthy(self) -> bool:
        return self.healthy_now

    def notices(self) -> Mapping[str, Any]:
        return {}

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Count a request as open, and as dropped if it reaches neither its end nor an error."""
        self.open += 1
        ended = False
        try:
            yield
            ended = True
        except UpstreamError:
            ended = True
            raise
        finally:
            self.open -= 1
            self.dropped += not ended

    def _take(self, plan: UpstreamRequest) -> list[Script]:
        model = plan.body.get("model", "")
        if self._strict and model not in self._served:
            raise UpstreamError(404, f"{model} is not here", {"code": "not_found"})
        self.plans.append(plan)
        count = plan.body.get("n") or 1
        if count > 1 and self._refuses_n:
            raise UpstreamError(400, "n must be 1 here", {"param": "n", "type": "BadRequestError"})
        continues = any(plan is continuing for continuing in self._continuing)
        scripts = self._continuations if continues else self._scripts
        return [scripts.popleft() if len(scripts) > 1 else scripts[0] for _ in range(count)]

    async def _play(self, scripts: list[Script]) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of all choices in turns, as engines interleave them."""
        yield self._chunk({"role": "assistant", "content": ""}, 0, {}, 0)
        steps = [deque(script.steps) for script in scripts]
        tokens = [0] * len(scripts)
        running = set(range(len(scripts)))
        while running:
            for place in sorted(running):
                if not steps[place]:
                    running.discard(place)
                    script = scripts[place]
                    if script.finish is None:
                        continue
                    ending = {"finish_reason": script.finish, **script.choice}
                    yield self._chunk({}, place, ending, tokens[place])
                    continue
                step = steps[place].popleft()
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, UpstreamError):
                    raise step
                else:
                    tokens[place] += step.tokens
                    yield self._chunk(_delta(step), place, step.choice, tokens[place])
        if self._usage:
            event = {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage_of(scripts)}
            yield Chunk(None, usage=event["usage"], event=event)

    async def _whole(self, place: int, script: Script) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        for step in script.steps:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, UpstreamError):
                raise step
            else:
                message["content"] += step.content
                if step.reasoning:
                    message["reasoning"] = message.get("reasoning", "") + step.reasoning
                message |= step.delta
        return {"index": place, "message": message, "finish_reason": script.finish, **script.choice}

    def _chunk(self, delta: Mapping[str, Any], place: int, choice: Mapping[str, Any], tokens: int) -> Chunk:
        whole = {"index": place, "delta": dict(delta), "finish_reason": None, **choice}
        event = {**self._head("chat.completion.chunk"), "choices": [whole]}
        if self._counts:
            event["usage"] = {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens}
        return Chunk(
            place,
            delta.get("content") or "",
            delta.get("reasoning") or "",
            whole["finish_reason"],
            tokens if self._counts else None,
            event.get("usage"),
            event,
            whole,
            failure=failure_of(whole["finish_reason"]),
        )

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "up-1", "object": kind, "created": 1, "model": MODEL, "system_fingerprint": "fp"}

    def _usage_of(self, scripts: list[Script]) -> dict[str, int]:
        generated = sum(script.tokens for script in scripts)
        total = self._prompt_tokens + generated
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": total,
        }


def _delta(step: Text) -> dict[str, Any]:
    delta = dict(step.delta)
    if step.reasoning:
        delta["reasoning"] = step.reasoning
    if step.content:
        delta["content"] = step.content
    return delta


def request_for(
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    family: str = "qwen3",
    context: int | None = 32768,
    answer_reserve: int = 1024,
    answer_cap: int | None = None,
    **fields: Any,
) -> RunRequest:
    """Plan a request as the route does; `fields` are further fields of the body."""
    payload: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
    payload |= {**(body or {}), **fields}
    sampling = read_sampling({name.lower(): value for name, value in (headers or {}).items()}, payload)
    model = ServedModel(
        MODEL,
        find_family("", explicit=family),
        ModelCard(MODEL, context=context),
        answer_reserve=answer_reserve,
        answer_cap=answer_cap,
    )
    stream, choices = bool(payload.pop("stream", False)), payload.pop("n", 1)
    reply = ReplyOptions(stream, choices, live=sampling.scaling.stream, trace=sampling.scaling.trace)
    return plan_request(payload, sampling, reply, model)


async def run_to_end(
    upstream: ScriptedUpstream, request: RunRequest, vote_settings: VoteSettings | None = None
) -> tuple[list[Event], RunResult]:
    """Run a request; return all its events and its result."""
    async with aclosing(Runner(upstream, vote_settings=vote_settings).run(request)) as stream:
        events = [event async for event in stream]
    last = events[-1]
    assert isinstance(last, Finished)
    return events, last.result


def vote_for(samples: int, stop: str = "none", **fields: Any) -> RunRequest:
    """Return a request that votes over this number of samples."""
    scaling = {"samples": samples, "stop": stop, **fields.pop("scaling", {})}
    return request_for(scaling=scaling, **fields)


def groups(result: RunResult) -> list[tuple[str, int]]:
    """Return the groups of the vote: answer and number of samples."""
    assert result.vote is not None
    return [(group.answer.raw, len(group.members)) for group in result.vote.groups]
