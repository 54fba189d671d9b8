"""A judge with a server of its own: another model than the judged one, behind any OpenAI-compatible URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scorers.judge import JudgeScorer
from scorers.trained import Post
from scorers.types import Sample, ScorerError, ScorerModel

__all__ = ["JudgeElsewhere", "Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a judge is served; `url` ends in `/v1`. `post` keeps no time: that is the caller's."""

    url: str
    post: Post
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JudgeElsewhere:
    """A `JudgeScorer` that asks its own server; what it takes there is counted with the request's."""

    judge: JudgeScorer
    server: Server
    needs_logprobs: bool = field(default=False, init=False)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`. Raises ScorerError where the server can't be asked or understood."""
        return await self.judge.score(messages, samples, _Served(self.server, model))


@dataclass(frozen=True, slots=True)
class _Served:
    """See `scorers.types.ScorerModel`: `told` is the request's own, for the count."""

    server: Server
    told: ScorerModel

    def count(self, tokens: int) -> None:
        self.told.count(tokens)

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        headers = {"Authorization": f"Bearer {self.server.key}"} if self.server.key else {}
        body = {"messages": list(messages), **params}
        reply = await self.server.post(f"{self.server.url.rstrip('/')}/chat/completions", body, headers)
        try:
            used = (reply.get("usage") or {}).get("total_tokens")
            choice = reply["choices"][0]
            content = choice["message"]["content"] or ""
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ScorerError("the judge's reply can't be understood") from error
        self.count(used if isinstance(used, int) else 0)
        return Sample(0, str(content), finish_reason=str(choice.get("finish_reason") or "stop"))
