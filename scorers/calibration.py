"""Calibrates a classifier's probabilities, so that 0.8 means correct eight times in ten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, isfinite, log, log1p
from pathlib import Path
from typing import Any

__all__ = ["UNCALIBRATED", "Calibration", "fit_calibration", "logistic", "logit", "read_calibration"]

_EDGE = 1e-7  # a probability is kept this far from 0 and 1 before its logit is taken


def logistic(value: float) -> float:
    """Return 1 / (1 + e^-x), without overflow."""
    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))


def logit(probability: float) -> float:
    """Return the inverse of `logistic`, finite also for 0 and 1."""
    clipped = min(max(probability, _EDGE), 1 - _EDGE)
    return log(clipped) - log1p(-clipped)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A straight line in the logits: Platt scaling (Platt 1999), which includes a temperature."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: float) -> float:
        """Return the calibrated probability."""
        if (self.scale, self.shift) == (1.0, 0.0):
            return probability
        return logistic(self.scale * logit(probability) + self.shift)


UNCALIBRATED = Calibration()
"""Leaves a probability as it is."""


def read_calibration(path: Path) -> Calibration:
    """Read a JSON file with scale and shift, or temperature, or logit_mean and logit_sigma.

    The last two are vLLM's: the logit minus the mean, over sigma. Raises OSError, and ValueError
    for a file of another form.
    """
    return _parse_calibration(json.loads(path.read_text(encoding="utf-8")))


def _parse_calibration(value: Any) -> Calibration:
    known = {"scale", "shift", "temperature", "logit_mean", "logit_sigma"}
    if not isinstance(value, Mapping) or not known & value.keys():
        raise ValueError(f"a calibration is an object with some of {', '.join(sorted(known))}")
    numbers = {key: float(value[key]) for key in known & value.keys()}
    sigma = numbers.get("logit_sigma", 1.0) * numbers.get("temperature", 1.0)
    if not all(map(isfinite, numbers.values())) or sigma <= 0:
        raise ValueError("a calibration's numbers are finite, its temperature and sigma above 0")
    scale = numbers.get("scale", 1.0) / sigma
    return Calibration(scale, numbers.get("shift", 0.0) - scale * numbers.get("logit_mean", 0.0))


def fit_calibration(
    probabilities: Sequence[float], labels: Sequence[bool], *, steps: int = 50
) -> Calibration:
    """Fit Platt's line by Newton's method.

    Platt's smoothed targets keep the line finite on separable data.
    """
    values = [logit(probability) for probability in probabilities]
    right = sum(labels)
    high, low = (right + 1) / (right + 2), 1 / (len(labels) - right + 2)
    targets = [high if label else low for label in labels]
    a, b = 0.0, log((right + 1) / (len(labels) - right + 1))
    loss = _loss(values, targets, a, b)
    for _ in range(steps):
        guesses = [logistic(a * value + b) for value in values]
        errors = [guess - target for guess, target in zip(guesses, targets, strict=True)]
        curves = [guess * (1 - guess) for guess in guesses]
        ga, gb = _dot(errors, values), fsum(errors)
        haa = fsum(c * v * v for c, v in zip(curves, values, strict=True)) + 1e-9
        hab, hbb = _dot(curves, values), fsum(curves) + 1e-9
        determinant = haa * hbb - hab * hab
        if determinant <= 0:
            break
        da, db = (hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant
        step = 1.0
        while (new := _loss(values, targets, a - step * da, b - step * db)) > loss and step > 1e-6:
            step /= 2  # Newton's full step may overshoot
        if new >= loss - 1e-12:
            break
        a, b, loss = a - step * da, b - step * db, new
    return Calibration(a, b)


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the scalar product."""
    return fsum(x * y for x, y in zip(left, right, strict=True))


def _loss(values: Sequence[float], targets: Sequence[float], a: float, b: float) -> float:
    """Return the cross-entropy of the targets, without overflow: log(1 + e^z) - t z."""
    lines = [a * value + b for value in values]
    return fsum(max(z, 0.0) + log1p(exp(-abs(z))) - t * z for z, t in zip(lines, targets, strict=True))
