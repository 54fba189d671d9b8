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
    """1.0 where the answer's last block of Python passes all tests and cases of the problem, else 0.0.

    A group's replies run side by side, `workers` at a time, each different code once. A reply without code,
    or cut off, gets 0.0. None for a problem without tests and cases. Raises `training.sandbox.SandboxError`
    where the sandbox fails: code never runs without one.
    """

    sandbox: Sandbox
    workers: int = 4

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        if not (problem.tests or problem.cases):
            return [None] * len(completions)
        codes = [last_code(completion.answer) if completion.finished else None for completion in completions]
        distinct = sorted({code for code in codes if code is not None})
        with ThreadPoolExecutor(self.workers) as pool:
            results = pool.map(lambda code: self._passes(code, problem), distinct)
            passing = {code for code, passes in zip(distinct, results, strict=True) if passes}
        return [float(code in passing) for code in codes]

    def _passes(self, code: str, problem: Problem) -> bool:
        if problem.tests and not self.sandbox.run(code, problem.tests).passed:
            return False
        return not problem.cases or self.sandbox.run_program(code, problem.cases).passed


def last_code(text: str) -> str | None:
    """Return the last closed code block that names Python or no language; None where there is none."""
    blocks = [match["code"] for match in _BLOCK.finditer(text) if match["language"].lower() in _PYTHON]
    return blocks[-1] if blocks else None
