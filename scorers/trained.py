"""Scores with a trained classifier: the probability that a reply is correct.

The classifier is on a server or in a local directory. A server speaks vLLM's pooling API
(`vllm serve MODEL --runner pooling`): `/classify` takes texts, which the prompt template makes, and
`/score` takes pairs of question and reply. With one label the probability is its sigmoid; with more,
`label` says which one means "right".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from scorers.calibration import UNCALIBRATED, Calibration
from scorers.concurrency import gather_or_cancel
from scorers.messages import last_question
from scorers.types import Sample, ScorerError, ScorerModel

__all__ = [
    "TEMPLATE",
    "Classifier",
    "ClassifierInput",
    "Post",
    "ServedClassifier",
    "TrainedScorer",
    "fill_template",
]

TEMPLATE = "{question}\n\n{answer}"

Post = Callable[[str, Mapping[str, Any], Mapping[str, str]], Awaitable[Mapping[str, Any]]]
"""POSTs JSON to a URL with headers; returns the reply's JSON. Raises `ScorerError`."""


@dataclass(frozen=True, slots=True)
class ClassifierInput:
    """One reply to classify, with its question and its thinking."""

    question: str
    answer: str
    reasoning: str = ""


class Classifier(Protocol):
    """Gives the probability that a reply is correct."""

    async def classify(self, inputs: Sequence[ClassifierInput]) -> tuple[list[float], int]:
        """Return one probability for each input, and the tokens read. Raises `ScorerError`."""
        ...


def fill_template(template: str, values: ClassifierInput) -> str:
    """Return the template with {question}, {answer} and {reasoning} filled in.

    Placeholders within the values stay as they are.
    """
    return re.sub(r"\{(question|answer|reasoning)\}", lambda match: getattr(values, match[1]), template)


@dataclass(frozen=True, slots=True)
class TrainedScorer:
    """Weighs each sample by a classifier's calibrated probability; None for a sample without text."""

    classifier: Classifier
    calibration: Calibration = UNCALIBRATED
    needs_logprobs: bool = field(default=False, init=False)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`. The classifier's tokens count with the request's."""
        question = last_question(messages)
        inputs = {
            index: ClassifierInput(question, sample.content, sample.reasoning)
            for index, sample in enumerate(samples)
            if sample.content.strip()
        }
        if not inputs:
            return [None] * len(samples)
        probabilities, tokens = await self.classifier.classify(list(inputs.values()))
        model.count(tokens)
        weights = dict(zip(inputs, map(self.calibration, probabilities), strict=True))
        return [weights.get(index) for index in range(len(samples))]


@dataclass(frozen=True, slots=True)
class ServedClassifier:
    """A classifier behind vLLM's `/classify` or `/score`; `url` is the server's root, without `/v1`.

    `batch` inputs go into one request, and all requests run concurrently. With `truncate`, texts
    longer than the model's context lose their beginning; otherwise the server refuses them.
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

    async def classify(self, inputs: Sequence[ClassifierInput]) -> tuple[list[float], int]:
        """See `Classifier`."""
        batches = [inputs[start : start + self.batch] for start in range(0, len(inputs), self.batch)]
        replies = await gather_or_cancel(map(self._send, batches))
        probabilities: list[float] = []
        tokens = 0
        for batch, reply in zip(batches, replies, strict=True):
            values = _probabilities(reply, self.label)
            if len(values) != len(batch):
                raise ScorerError(f"the classifier scored {len(values)} of {len(batch)} texts")
            probabilities += values
            batch_tokens = (reply.get("usage") or {}).get("total_tokens")
            tokens += batch_tokens if isinstance(batch_tokens, int) else 0
        return probabilities, tokens

    async def _send(self, inputs: Sequence[ClassifierInput]) -> Mapping[str, Any]:
        body: dict[str, Any] = {} if self.model is None else {"model": self.model}
        if self.truncate:
            body |= {"truncate_prompt_tokens": -1, "truncation_side": "left"}
        if self.endpoint == "classify":
            body["input"] = [fill_template(self.template, item) for item in inputs]
        else:
            body["text_1"] = [item.question for item in inputs]
            body["text_2"] = [item.answer for item in inputs]
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return await self.post(f"{self.url.rstrip('/')}/{self.endpoint}", body, headers)


def _probabilities(reply: Mapping[str, Any], label: int) -> list[float]:
    """Return each text's probability from a reply, in the texts' order. Raises ScorerError."""
    try:
        entries = sorted(reply["data"], key=lambda entry: entry["index"])
        values = [float(e["probs"][label] if "probs" in e else e["score"]) for e in entries]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ScorerError("the classifier's reply is not one of vLLM's pooling API") from error
    if not all(0 <= value <= 1 for value in values):
        raise ScorerError("the classifier gives scores outside [0, 1]; it needs a sigmoid or softmax")
    return values
