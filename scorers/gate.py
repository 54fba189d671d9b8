"""The release gate of a trained scorer: a file that says what it was measured to do, and if that is enough.

Written by whoever trained it, beside its weights (`gate.json`); serving refuses a scorer without
a passing one. Two scorers with a pooled AUC of .73 lost to a plain majority vote, so what
counts is told by name, check by check:

    {"passed": true, "made": "2026-01-31T12:00:00+00:00", "model_sha256": "...",
     "checks": [{"name": "within-problem AUC", "value": 0.81, "needed": 0.7, "passed": true}, ...],
     "data": {"name": "chain_sum", "problems": 200, "...": "..."}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = [
    "GATE_FILE",
    "Check",
    "Gate",
    "model_digest",
    "parse_gate",
    "read_gate",
    "require_release",
    "write_gate",
]

GATE_FILE = "gate.json"
_FIELDS = {"passed", "checks", "data", "made", "model_sha256"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was measured: its value, what was needed, and whether that was reached."""

    name: str
    value: float
    needed: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """All checks; `made` is when (ISO 8601), `data` on what, `model_sha256` of which weights.

    See `model_digest` for the latter.
    """

    checks: tuple[Check, ...]
    made: str
    model_sha256: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there are checks, and every one passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def parse_gate(text: str) -> Gate:
    """The gate that a file's text holds. Raises ValueError where it isn't in the form above.

    A file that says it passed while one of its checks did not contradicts itself, and is none.
    """
    held = json.loads(text)
    if not isinstance(held, dict) or not held.keys() <= _FIELDS or not isinstance(held.get("passed"), bool):
        raise ValueError(f"a gate is an object of {', '.join(sorted(_FIELDS))}")
    checks, made, data = held.get("checks"), held.get("made"), held.get("data", {})
    if not isinstance(checks, list) or not isinstance(made, str) or not isinstance(data, dict):
        raise ValueError("a gate has a list of checks, a date when it was made, and may tell of its data")
    datetime.fromisoformat(made)
    digest = held.get("model_sha256")
    if digest is not None and not isinstance(digest, str):
        raise ValueError("model_sha256 is a string")
    gate = Gate(tuple(map(_parse_check, checks)), made, digest, data)
    if gate.passed != held["passed"]:
        raise ValueError(f"it says passed: {json.dumps(held['passed'])}, and its checks say otherwise")
    return gate


def read_gate(path: Path) -> Gate:
    """The gate in a file. Raises OSError, and ValueError where it can't be used."""
    return parse_gate(path.read_text(encoding="utf-8"))


def write_gate(path: Path, gate: Gate) -> None:
    """Writes the file that `read_gate` reads."""
    held = {**asdict(gate), "passed": gate.passed}
    path.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def require_release(name: str, path: Path | None, weights: Path | None = None) -> None:
    """Raises ValueError, in one sentence, unless the file is a passing gate.

    Where `weights` lie on this machine (see `model_digest`) it has to be theirs and say so; a
    server's can't be looked at.
    """
    instead = "set unproven = true to serve it all the same"
    if path is None:
        raise ValueError(f"{name}: a trained scorer needs a release gate (gate = FILE); {instead}")
    try:
        gate = read_gate(path)
    except FileNotFoundError as error:
        raise ValueError(f"{name}: the release gate {path} is missing; {instead}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: the release gate {path} can't be used ({error}); {instead}") from error
    if not gate.passed:
        failed = [f"{c.name} is {c.value:g}, needed {c.needed:g}" for c in gate.checks if not c.passed]
        why = "; ".join(failed) or "it has no checks"
        raise ValueError(f"{name}: the release gate {path} did not pass ({why}); {instead}")
    if weights is None:
        return
    if gate.model_sha256 is None:
        raise ValueError(f"{name}: the release gate {path} names no weights (model_sha256); {instead}")
    if not weights.exists():
        raise ValueError(f"{name}: there is no {weights}")
    try:
        digest = model_digest(weights)
    except OSError as error:
        raise ValueError(f"{name}: {weights} can't be read ({error.strerror})") from error
    if gate.model_sha256 != digest:
        converted = " (thinkgate adapter binds it to the file that it writes)" if weights.is_file() else ""
        raise ValueError(f"{name}: the release gate {path} is about other weights{converted}; {instead}")


def model_digest(weights: Path) -> str:
    """SHA-256 of a model's weights: a GGUF file's own, or a directory's.

    That is of its *.safetensors files' bytes, one after the other by name. Raises OSError.
    """
    digest = hashlib.sha256()
    for path in [weights] if weights.is_file() else sorted(weights.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _parse_check(held: object) -> Check:
    if not isinstance(held, dict) or held.keys() != {"name", "value", "needed", "passed"}:
        raise ValueError("a check has a name, a value, what was needed, and whether it passed")
    numbers: Sequence[Any] = held["value"], held["needed"]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise ValueError(f"check {held['name']!r}: value and needed are numbers")
    if not isinstance(held["name"], str) or not isinstance(held["passed"], bool):
        raise ValueError("a check's name is a string, its passed true or false")
    return Check(held["name"], float(held["value"]), float(held["needed"]), held["passed"])
