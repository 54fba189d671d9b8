"""Worked chains of thought for problems that rules make: a teacher that is always correct.

For reasoning-gym's arithmetic the chains follow from a task's metadata; `gsm_symbolic` has its own. A chain
comes at two lengths: "high" works every step out, "low" notes only the results. To add a task, write one
function and one line in `CHAINS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["CHAINS", "LENGTHS", "worked_chains"]

LENGTHS = {"minimal": "low", "low": "low", "medium": "high", "high": "high", "max": "high"}
"""The chain that a level learns from; "off" has none."""

_TERM = re.compile(r"-?\d+")


def worked_chains(task: str, metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """Return both chains of a reasoning-gym entry, from its metadata; None where they can't be written."""
    return CHAINS[task](metadata) if task in CHAINS else None


def running_totals(expression: str) -> dict[str, str] | None:
    """Return the chains of a sum like "4 + 3 - 12", from left to right; None for anything but + and -."""
    tokens = expression.split()
    if len(tokens) % 2 == 0 or len(tokens) < 3 or not all(_TERM.fullmatch(term) for term in tokens[::2]):
        return None
    if not set(tokens[1::2]) <= {"+", "-"}:
        return None
    total = int(tokens[0])
    steps: list[str] = []
    totals: list[str] = []
    for sign, term in zip(tokens[1::2], tokens[2::2], strict=True):
        new = total + int(term) if sign == "+" else total - int(term)
        steps.append(f"{total} {sign} {term} = {new}")
        totals.append(str(new))
        total = new
    return {"low": ", ".join(totals), "high": "\n".join(steps)}


def _sums(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    return running_totals(str(metadata["expression"]))


def _symbolic(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """Return GSM-Symbolic's own solution without its last line; the short chain is its equations."""
    text = str(metadata["answer_cot"]).partition("####")[0].strip()
    equations = re.findall(r"[\d.,]+(?: ?[-+*/×] ?[\d.,]+)+ ?= ?[\d.,]*\d", text)
    return {"low": ", ".join(equations), "high": text} if equations else None


def _legs(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total = 0
    steps, totals = [], []
    for animal, count in metadata["animals"].items():
        legs = ANIMALS[animal] * count
        steps.append(
            f"{count} {animal}: {count} * {ANIMALS[animal]} = {legs}, {total} + {legs} = {total + legs}"
        )
        total += legs
        totals.append(str(total))
    return {"low": ", ".join(totals), "high": "\n".join(steps)}


CHAINS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, str] | None]] = {
    "basic_arithmetic": _sums,
    "chain_sum": _sums,
    "gsm_symbolic": _symbolic,
    "leg_counting": _legs,
}
"""Maps a task to a function from its metadata to its chains."""
