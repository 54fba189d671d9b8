"""Advantages: how much better a reply is than its group's mean, and in which unit.

The unit is named by `how`:

- "group": the group's standard deviation (GRPO, arXiv:2402.03300).
- "batch": the standard deviation of all the batch's rewards (arXiv:2508.08221).
- "none": no unit, the plain difference (Dr. GRPO, arXiv:2503.20783).
- "magistral": the standard deviation of the minibatch's differences (Magistral, arXiv:2506.10910).

Standard deviations are of samples (n - 1), as in TRL. Where there is no spread every advantage is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal

__all__ = ["Normalisation", "advantages", "spread"]

Normalisation = Literal["group", "batch", "none", "magistral"]

Groups = Sequence[Sequence[float | None]]

FLAT = 1e-6  # the largest standard deviation that counts as rounding


def advantages(groups: Groups, how: Normalisation) -> list[list[float | None]]:
    """Return each reward's advantage; a group holds the replies to one question.

    None stays None and counts nowhere.
    """
    centred = [_centre(group) for group in groups]
    if how == "none":
        return centred
    if how == "group":
        return [_divide(group, spread(group)) for group in centred]
    pooled = groups if how == "batch" else centred
    unit = spread([value for group in pooled for value in group])
    return [_divide(group, unit) for group in centred]


def spread(values: Sequence[float | None]) -> float:
    """Return the standard deviation without the Nones; 0.0 for fewer than two values and for rounding."""
    numbers = [value for value in values if value is not None]
    deviation = stdev(numbers) if len(numbers) > 1 else 0.0
    return deviation if deviation > FLAT else 0.0


def _centre(group: Sequence[float | None]) -> list[float | None]:
    numbers = [value for value in group if value is not None]
    mean = fmean(numbers) if numbers else 0.0
    return [None if value is None else value - mean for value in group]


def _divide(values: Sequence[float | None], unit: float) -> list[float | None]:
    return [None if value is None else value / unit if unit else 0.0 for value in values]
