"""How sure a model was of its own tokens, read from OpenAI-style log probabilities.

A token's entry is `{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}`. The
confidence of a token is DeepConf's (Fu et al. 2025): minus the mean of the logged top-k
log probabilities, high where the model saw one way to go on and low where it saw many. It
takes k >= 2 to tell anything; tokens logged with fewer are passed over.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, fsum, isfinite, log
from types import MappingProxyType
from typing import Any, overload

from scorers.types import Sample, ScorerModel

__all__ = [
    "MEASURES",
    "WINDOW",
    "ConfidenceScorer",
    "ConfidenceWindow",
    "compact",
    "content_of",
    "mean_logprob",
    "self_certainty",
    "token_confidence",
]

WINDOW = 2048
"""Tokens in a group (and in the tail): DeepConf's."""

Entry = Mapping[str, Any]

IMPOSSIBLE = -9999.0
"""What engines write for minus infinity, as under a grammar; such a token tells nothing."""


def content_of(logprobs: Mapping[str, Any] | None) -> Sequence[Entry]:
    """The tokens of OpenAI's `choices[].logprobs`; empty where there are none."""
    return (logprobs or {}).get("content") or ()


class _Tops(Sequence[Entry]):
    """The `top_logprobs` of one token without their texts: 4 bytes each."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[float]) -> None:
        self._values = array("f", values)

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[float]:
        """The log probabilities, all of them possible ones."""
        return self._values.tolist()

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return _Tops(self._values[place])
        return {"logprob": self._values[place]}


def compact(content: Iterable[Entry]) -> list[Entry]:
    """The tokens with nothing but the numbers that confidence is read from, in a fraction of the memory."""
    return [{"logprob": entry["logprob"], "top_logprobs": _Tops(_top(entry))} for entry in content]


def token_confidence(entry: Entry) -> float | None:
    """C = -mean of the logged top-k log probabilities, in nats; None where fewer than two are logged."""
    logged = _top(entry)
    return -fsum(logged) / len(logged) if len(logged) >= 2 else None


def mean_logprob(content: Sequence[Entry]) -> float | None:
    """The mean log probability of the drawn tokens, in nats; its exponential lies in (0, 1]."""
    drawn = [float(entry["logprob"]) for entry in content if _possible(entry["logprob"])]
    return fsum(drawn) / len(drawn) if drawn else None


def self_certainty(content: Sequence[Entry]) -> float | None:
    """KL(uniform || p) in nats, averaged over tokens (Kang et al. 2025).

    The paper sums over the whole vocabulary. An engine logs only the top k, so p is taken
    to be those k, renormalised: KL = -ln k - mean ln p_j. That ranks samples much as the
    full sum does, but its values can be compared only at one and the same k.
    """
    values = []
    for entry in content:
        logged = _top(entry)
        if len(logged) >= 2:
            mass = log(fsum(map(exp, logged)))
            values.append(mass - fsum(logged) / len(logged) - log(len(logged)))
    return fsum(values) / len(values) if values else None


def _top(entry: Entry) -> list[float]:
    if isinstance(compacted := entry.get("top_logprobs"), _Tops):
        return compacted.values()
    return [float(top["logprob"]) for top in entry.get("top_logprobs") or () if _possible(top["logprob"])]


def _possible(logprob: float | None) -> bool:
    return logprob is not None and isfinite(logprob) and logprob > IMPOSSIBLE


@dataclass(slots=True)
class ConfidenceWindow:
    """Group confidences of one sample while it streams: O(1) for each token.

    A group is the mean confidence of the last `size` tokens; groups shorter than that are
    not judged, because a few hesitant first words say little about a trace.
    """

    size: int = WINDOW
    groups: list[float] = field(default_factory=list)
    lowest: float | None = None
    """The lowest group so far; None until the first is full."""
    count: int = 0
    total: float = 0.0
    _recent: deque[float] = field(default_factory=deque)
    _sum: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("a window holds at least one token")

    def feed(self, content: Iterable[Entry]) -> float | None:
        """Take the next tokens; returns the lowest full group so far."""
        for entry in content:
            if (value := token_confidence(entry)) is not None:
                self._push(value)
        return self.lowest

    def _push(self, value: float) -> None:
        self.count += 1
        self.total += value
        self._sum += value
        self._recent.append(value)
        if len(self._recent) > self.size:
            self._sum -= self._recent.popleft()
        if len(self._recent) == self.size:
            group = self._sum / self.size
            self.groups.append(group)
            self.lowest = group if self.lowest is None else min(self.lowest, group)

    @property
    def mean(self) -> float | None:
        """The mean over all tokens; None where none could be read."""
        return self.total / self.count if self.count else None

    @property
    def trace(self) -> float | None:
        """A finished sample's confidence: its lowest group, or the mean where it is shorter than one."""
        return self.mean if self.lowest is None else self.lowest

    @property
    def tail(self) -> float | None:
        """The mean over the last `size` tokens, where a trace draws its conclusion."""
        return self._sum / len(self._recent) if self._recent else None

    def bottom(self, part: float = 0.1) -> float | None:
        """The mean of the lowest `part` of all groups, of at least one; the mean where none is full."""
        if not self.groups:
            return self.mean
        lowest = sorted(self.groups)[: max(1, ceil(part * len(self.groups)))]
        return fsum(lowest) / len(lowest)


MEASURES: Mapping[str, Callable[[ConfidenceWindow], float | None]] = MappingProxyType(
    {
        "bottom": ConfidenceWindow.bottom,
        "lowest": lambda window: window.trace,
        "mean": lambda window: window.mean,
        "tail": lambda window: window.tail,
    }
)


@dataclass(frozen=True, slots=True)
class ConfidenceScorer:
    """Weighs samples by one of DeepConf's `MEASURES`, or by "certainty" or "probability".

    "probability" is the geometric mean of the drawn tokens' probabilities, already in
    (0, 1]. Every other measure is open-ended, so it is divided by the largest among the
    samples scored together: the weights keep their proportions, as DeepConf's vote needs
    them, but say nothing across requests. A sample without usable logprobs gets None.
    """

    measure: str = "bottom"
    window: int = WINDOW
    needs_logprobs: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError("a window holds at least one token")
        allowed = (*MEASURES, "certainty", "probability")
        if self.measure not in allowed:
            raise ValueError(f"unknown measure {self.measure!r}; allowed: {', '.join(allowed)}")

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`; the model is not asked."""
        return self.weigh([content_of(sample.logprobs) for sample in samples])

    def weigh(self, contents: Sequence[Sequence[Entry]]) -> list[float | None]:
        """The weight of each sample, given its logged tokens."""
        values = [self._value(content) for content in contents]
        if self.measure == "probability":
            return [None if value is None else min(1.0, exp(value)) for value in values]
        largest = max((value for value in values if value is not None), default=0.0)
        return [
            None if value is None else (max(0.0, value) / largest if largest > 0 else 1.0) for value in values
        ]

    def _value(self, content: Sequence[Entry]) -> float | None:
        if self.measure == "certainty":
            return self_certainty(content)
        if self.measure == "probability":
            return mean_logprob(content)
        window = ConfidenceWindow(self.window)
        window.feed(content)
        return MEASURES[self.measure](window)
