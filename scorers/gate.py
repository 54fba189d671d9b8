"""The release gate of a trained scorer: a file with its measurements, and whether they suffice.

Training writes the file beside the scorer's weights (`gate.json`), and serving refuses a scorer
without a passing gate. Two scorers with a pooled AUC of .73 lost to a plain majority vote, so the
file lists every check by name:

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
    """One measurement: its value, the value it needs, and whether it reached that."""

    name: str
    value: float
    needed: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """All checks of one scorer.

    `made` is the date of the measurement (ISO 8601) and `data` describes its problems.
    `model_sha256` is the digest of the measured weights (see `model_digest`).
    """

    checks: tuple[Check, ...]
    made: str
    model_sha256: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Return whether there are checks and all of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def parse_gate(text: str) -> Gate:
    """Return the gate in a file's text. Raises ValueError if it is not in the form above.

    A file that says it passed while one of its checks did not contradicts itself, and is invalid.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or not fields.keys() <= _FIELDS:
        raise ValueError(f"a gate is an object of {', '.join(sorted(_FIELDS))}")
    if not isinstance(fields.get("passed"), bool):
        raise ValueError("passed is true or false")
    checks, made, data = fields.get("checks"), fields.get("made"), fields.get("data", {})
    if not isinstance(checks, list) or not isinstance(made, str) or not isinstance(data, dict):
        raise ValueError("checks is a list, made is a date, and data, if present, is an object")
    datetime.fromisoformat(made)
    digest = fields.get("model_sha256")
    if digest is not None and not isinstance(digest, str):
        raise ValueError("model_sha256 is a string")
    gate = Gate(tuple(map(_parse_check, checks)), made, digest, data)
    if gate.passed != fields["passed"]:
        raise ValueError(f"it says passed: {json.dumps(fields['passed'])}, but its checks say otherwise")
    return gate


def read_gate(path: Path) -> Gate:
    """Read the gate in a file. Raises OSError, and ValueError if it is invalid."""
    return parse_gate(path.read_text(encoding="utf-8"))


def write_gate(path: Path, gate: Gate) -> None:
    """Write the file that `read_gate` reads."""
    fields = {**asdict(gate), "passed": gate.passed}
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def require_release(name: str, path: Path | None, weights: Path | None = None) -> None:
    """Raise ValueError, in one sentence, unless the file is a passing gate.

    If the `weights` are on this machine, the gate must name them (see `model_digest`). A server's
    weights can't be checked.
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
    """Return the SHA-256 of a model's weights: a GGUF file, or a directory.

    A directory's digest is that of its *.safetensors files' bytes, one file after the other by
    name. Raises OSError.
    """
    digest = hashlib.sha256()
    for path in [weights] if weights.is_file() else sorted(weights.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _parse_check(fields: object) -> Check:
    if not isinstance(fields, dict) or fields.keys() != {"name", "value", "needed", "passed"}:
        raise ValueError("a check is an object of name, value, needed and passed")
    numbers: Sequence[Any] = fields["value"], fields["needed"]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise ValueError(f"check {fields['name']!r}: value and needed are numbers")
    if not isinstance(fields["name"], str) or not isinstance(fields["passed"], bool):
        raise ValueError("a check's name is a string, and its passed is true or false")
    return Check(fields["name"], float(fields["value"]), float(fields["needed"]), fields["passed"])
