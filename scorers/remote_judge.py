"""A judge with its own server: another model than the judged one, behind any OpenAI-compatible URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scorers.judge import JudgeScorer
from scorers.trained import Post
from scorers.types import Sample, ScorerError, ScorerModel

__all__ = ["JudgeServer", "RemoteJudge"]


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """A judge's server; `url` ends in `/v1`. `post` has no timeout; the caller sets one."""

    url: str
    post: Post
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RemoteJudge:
    """A `JudgeScorer` that asks its own server; its tokens count with the request's."""

    judge: JudgeScorer
    server: JudgeServer
    needs_logprobs: bool = field(default=False, init=False)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`. Raises ScorerError if the server fails or its reply is invalid."""
        return await self.judge.score(messages, samples, _ServerModel(self.server, model))


@dataclass(frozen=True, slots=True)
class _ServerModel:
    """A `scorers.types.ScorerModel` on the judge's server; `request_model` counts the tokens."""

    server: JudgeServer
    request_model: ScorerModel

    def count(self, tokens: int) -> None:
        self.request_model.count(tokens)

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        headers = {"Authorization": f"Bearer {self.server.key}"} if self.server.key else {}
        body = {"messages": list(messages), **params}
        reply = await self.server.post(f"{self.server.url.rstrip('/')}/chat/completions", body, headers)
        try:
            tokens = (reply.get("usage") or {}).get("total_tokens")
            choice = reply["choices"][0]
            content = choice["message"]["content"] or ""
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ScorerError("the judge's reply is not a chat completion") from error
        self.count(tokens if isinstance(tokens, int) else 0)
        return Sample(0, str(content), finish_reason=str(choice.get("finish_reason") or "stop"))
