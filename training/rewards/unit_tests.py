"""The reward for code: unit tests, run in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from training.sandbox import Sandbox
from training.types import Completion, Problem

__all__ = ["UnitTests", "last_code"]

_BLOCK = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[^\n`]*\n"
    r"(?P<code>.*?)^ {0,3}(?P=fence)[`~]*[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = {"", "python", "python3", "py"}


@dataclass(frozen=True, slots=True)
class UnitTests:
    """1.0 where the answer's last block of Python passes all of the row's tests, else 0.0.

    A group's replies run side by side, `workers` at a time, each different code once. A reply
    without code, or cut off, is 0.0; None for a row without tests. Raises
    `training.sandbox.SandboxError` where the sandbox fails: code is never run without one.
    """

    sandbox: Sandbox
    workers: int = 4

    def __call__(self, row: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        if not row.tests:
            return [None] * len(completions)
        codes = [last_code(each.answer) if each.finished else None for each in completions]
        different = sorted({code for code in codes if code is not None})
        with ThreadPoolExecutor(self.workers) as pool:
            outcomes = pool.map(lambda code: self.sandbox.run(code, row.tests), different)
            passed = {code for code, outcome in zip(different, outcomes, strict=True) if outcome.passed}
        return [float(code in passed) for code in codes]


def last_code(text: str) -> str | None:
    """The last closed code block that is Python's or nobody's; None where there is none."""
    found = [match["code"] for match in _BLOCK.finditer(text) if match["language"].lower() in _PYTHON]
    return found[-1] if found else None
