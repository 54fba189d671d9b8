"""The demo's client: plain HTTP, as any client of the gateway could use."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.demo.questions import DemoSetting, Question
from gateway.upstreams.sse import EventParser

__all__ = ["DemoFailed", "DemoReply", "SampleSeen", "ask", "served_model"]

_TIMEOUT = 600.0
_MAX_TOKENS = 160  # thinking and answer of a sample that does not end by itself


class DemoFailed(Exception):
    """The demo can't continue; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class SampleSeen:
    """One finished sample, as a progress event reports it."""

    status: str
    answer: str | None
    tokens: int
    reasoning: str
    content: str


@dataclass(slots=True)
class DemoReply:
    """One streamed reply, as far as it has arrived.

    `reasoning` and `content` are the reply's own text. `groups` is the vote so far: (answer, count, weight),
    the heaviest first. `tokens` counts everything generated; `seconds` is the time since the request.
    """

    reasoning: str = ""
    content: str = ""
    samples: list[SampleSeen] = field(default_factory=list)
    groups: list[tuple[str, int, float]] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0

    def feed(self, chunk: Mapping[str, Any]) -> None:
        """Take in one `chat.completion.chunk`. Raises `DemoFailed` for an error event."""
        if "error" in chunk:
            raise DemoFailed(f"The gateway's stream ended with an error: {chunk['error'].get('message')}")
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            self.reasoning += delta.get("reasoning_content") or ""
            self.content += delta.get("content") or ""
        self.tokens = (chunk.get("usage") or {}).get("completion_tokens", self.tokens)
        scaling = chunk.get("scaling") or {}
        self.counts = scaling.get("samples") or self.counts
        if vote := scaling.get("vote"):
            self.groups = [(group["answer"], group["count"], group["weight"]) for group in vote["groups"]]
        if progress := scaling.get("progress"):
            self.samples.append(
                SampleSeen(
                    progress["status"],
                    progress.get("answer"),
                    progress.get("tokens", 0),
                    progress.get("reasoning", ""),
                    progress.get("content", ""),
                )
            )


def ask(
    address: tuple[str, int], model: str, question: Question, setting: DemoSetting
) -> Iterator[DemoReply]:
    """Ask one question. Yield the same `DemoReply` each time that more of it has arrived.

    Raises `DemoFailed`.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question.text}],
        "temperature": 1.0,
        "seed": question.seed,
        "max_tokens": _MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "scaling": {"trace": True},
    }
    headers = {
        "Content-Type": "application/json",
        "X-Reasoning-Budget": setting.budget,
        "X-Samples": str(setting.samples),
        **({"X-Scorer": setting.scorer} if setting.scorer else {}),
    }
    reply, start = DemoReply(), time.monotonic()
    for payload in _events(address, body, headers):
        reply.feed(json.loads(payload))
        reply.seconds = time.monotonic() - start
        yield reply


def served_model(address: tuple[str, int]) -> str:
    """Return the first model that the gateway serves. Raises `DemoFailed`."""
    connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/v1/models")
        models = json.loads(connection.getresponse().read()).get("data") or []
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DemoFailed(f"The gateway does not answer ({type(error).__name__}).") from error
    finally:
        connection.close()
    if not models:
        raise DemoFailed("The gateway serves no model; is its upstream running?")
    return str(models[0]["id"])


def _events(address: tuple[str, int], body: Mapping[str, Any], headers: dict[str, str]) -> Iterator[bytes]:
    """Send one streamed request and yield the payloads of its reply, up to `[DONE]`."""
    connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            message = json.loads(response.read())["error"]["message"]
            raise DemoFailed(f"The gateway answered {response.status}: {message}")
        parser = EventParser()
        while block := response.read1(1 << 16):
            for payload in parser.feed(block):
                if payload == b"[DONE]":
                    return
                yield payload
        raise DemoFailed("The gateway closed its reply before the end.")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise DemoFailed(f"The gateway's reply can't be read ({type(error).__name__}: {error}).") from error
    finally:
        connection.close()
