"""A trained classifier as scorer: the probability that a reply is right, from a server or a local directory.

The server speaks vLLM's pooling API (`vllm serve MODEL --runner pooling`): `/classify` takes
texts, which the prompt template makes, `/score` takes pairs of question and reply. One
label means a sigmoid; with more, `label` says which one means "right".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from scorers.calibration import UNCALIBRATED, Calibration
from scorers.concurrency import together
from scorers.conversation import question_of
from scorers.types import Sample, ScorerError, ScorerModel

__all__ = ["TEMPLATE", "Case", "Classifier", "Post", "ServedClassifier", "TrainedScorer", "filled"]

TEMPLATE = "{question}\n\n{answer}"

Post = Callable[[str, Mapping[str, Any], Mapping[str, str]], Awaitable[Mapping[str, Any]]]
"""POSTs JSON to a URL with headers; returns the reply's JSON. Raises `ScorerError`."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to classify: a reply, its thinking, and what was asked."""

    question: str
    answer: str
    reasoning: str = ""


class Classifier(Protocol):
    """Says how probable it is that a reply is right."""

    async def classify(self, cases: Sequence[Case]) -> tuple[list[float], int]:
        """One probability for each case, and the tokens that it took. Raises `ScorerError`."""
        ...


def filled(template: str, case: Case) -> str:
    """The template with {question}, {answer} and {reasoning} in their places; nothing in them is replaced."""
    return re.sub(r"\{(question|answer|reasoning)\}", lambda match: getattr(case, match[1]), template)


@dataclass(frozen=True, slots=True)
class TrainedScorer:
    """Weighs each sample by a classifier's calibrated probability; None for a sample without text."""

    classifier: Classifier
    calibration: Calibration = UNCALIBRATED
    needs_logprobs: bool = field(default=False, init=False)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`. The classifier's tokens are counted with the request's."""
        question = question_of(messages)
        cases = {
            place: Case(question, sample.content, sample.reasoning)
            for place, sample in enumerate(samples)
            if sample.content.strip()
        }
        if not cases:
            return [None] * len(samples)
        probabilities, tokens = await self.classifier.classify(list(cases.values()))
        model.count(tokens)
        weights = dict(zip(cases, map(self.calibration, probabilities), strict=True))
        return [weights.get(place) for place in range(len(samples))]


@dataclass(frozen=True, slots=True)
class ServedClassifier:
    """A classifier behind vLLM's `/classify` or `/score`; `url` is the server's root, without `/v1`.

    `batch` cases go into one request, and all requests run side by side. Texts longer than
    the model's context lose their beginning, where `truncate` is set; else the server
    refuses them.
    """

    url: str
    post: Post
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    endpoint: Literal["classify", "score"] = "classify"
    template: str = TEMPLATE
    label: int = -1
    batch: int = 64
    truncate: bool = True

    async def classify(self, cases: Sequence[Case]) -> tuple[list[float], int]:
        """See `Classifier`."""
        batches = [cases[start : start + self.batch] for start in range(0, len(cases), self.batch)]
        replies = await together(map(self._send, batches))
        probabilities: list[float] = []
        tokens = 0
        for batch, reply in zip(batches, replies, strict=True):
            read = _probabilities(reply, self.label)
            if len(read) != len(batch):
                raise ScorerError(f"the classifier judged {len(read)} of {len(batch)} texts")
            probabilities += read
            used = (reply.get("usage") or {}).get("total_tokens")
            tokens += used if isinstance(used, int) else 0
        return probabilities, tokens

    async def _send(self, cases: Sequence[Case]) -> Mapping[str, Any]:
        body: dict[str, Any] = {} if self.model is None else {"model": self.model}
        if self.truncate:
            body |= {"truncate_prompt_tokens": -1, "truncation_side": "left"}
        if self.endpoint == "classify":
            body["input"] = [filled(self.template, case) for case in cases]
        else:
            body |= {"text_1": [case.question for case in cases], "text_2": [case.answer for case in cases]}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return await self.post(f"{self.url.rstrip('/')}/{self.endpoint}", body, headers)


def _probabilities(reply: Mapping[str, Any], label: int) -> list[float]:
    """What a reply says of each text, in the texts' order. Raises ScorerError."""
    try:
        entries = sorted(reply["data"], key=lambda entry: entry["index"])
        values = [float(e["probs"][label] if "probs" in e else e["score"]) for e in entries]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ScorerError("the classifier's reply can't be understood") from error
    if not all(0 <= value <= 1 for value in values):
        raise ScorerError("the classifier gives scores outside [0, 1]; it needs a sigmoid or softmax")
    return values
