"""The process behind `scorers.grader.pool`: the only place that loads sympy and math-verify.

One nursery imports them once and forks a child for each question, so a question can be
killed without costing an import, leaves nothing behind, and meets no other. A child has
limits on CPU, memory and wall time. Model text reaches sympy through math-verify's LaTeX
grammar only: its `ExprExtractionConfig` calls `parse_expr`, which is Python's eval, so it is
never used. The LaTeX route calls sympify too, but for its number tokens only, so the eval
below it is replaced by a reader of numbers.

Lines of JSON: in {"id", "a", "b"}; out {"ready"} once, then {"id", "verdict"}.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from scorers.grader.equality import same_answer
from scorers.grader.latex import strip_formatting
from scorers.grader.parsing import parse_answer

__all__ = ["grade", "main"]

_MAX_COSTLY_STEPS = 200  # costly steps for our own evaluation here, where nobody else waits
_WARM = [(r"\frac{1}{2}+x", r"x+0.5"), (r"\int_0^1 x\,dx", r"\frac12"), (r"\sqrt{x^2+1}", r"(x^2+1)^{1/2}")]
_NUMBER = re.compile(r"\s*(Integer|Float)\s*\(\s*'?(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,4})?|\.\d+)'?\s*\)\s*")
_RESULTS = {b"T": True, b"F": False}


def grade(a: str, b: str, seconds: int = 1) -> bool | None:
    """Whether two answers are the same: our own proof with more effort, then math-verify both ways round.

    Each of math-verify's steps may take so many seconds.
    """
    verdict = same_answer(parse_answer(a), parse_answer(b), _MAX_COSTLY_STEPS)
    return _math_verify(strip_formatting(a), strip_formatting(b), seconds) if verdict is None else verdict


def _math_verify(a: str, b: str, seconds: int) -> bool | None:
    """math-verify's verdict where it is the same in both directions and no number speaks against it."""
    from math_verify import LatexExtractionConfig, parse, verify

    def tree(text: str) -> list[Any]:
        latex = [LatexExtractionConfig()]
        found = parse(f"${text}$", latex, fallback_mode="no_fallback", parsing_timeout=seconds)
        return [each for each in found if not isinstance(each, str)]

    left, right = tree(a), tree(b)
    if not left or not right:
        return None
    options = {
        "float_rounding": 10,
        "numeric_precision": 50,
        "timeout_seconds": seconds,
        "raise_on_error": True,
    }
    try:
        forward, backward = verify(left, right, **options), verify(right, left, **options)
    # math-verify raises whatever sympy does, and its timeout is no Exception: all of it is "undecided".
    except BaseException:  # noqa: BLE001
        return None
    if forward != backward:
        return None
    return None if forward and _digits_differ(left[0], right[0]) else bool(forward)


def _digits_differ(left: Any, right: Any) -> bool:
    """Whether two constants that were called equal differ in their first 40 digits."""
    try:
        if left.free_symbols or right.free_symbols:
            return False
        first, second = left.evalf(60), right.evalf(60)
        return bool(abs(first - second) > max(abs(first), abs(second)) * 10**-40)
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        return False


def _warm_up() -> None:
    """Imports, and enough questions that the children inherit warm caches."""
    os.environ["SYMPY_GROUND_TYPES"] = "python"  # FLINT's end the process at the memory limit
    from sympy.parsing import sympy_parser

    sympy_parser.eval_expr = _parse_number
    for a, b in _WARM:
        _math_verify(a, b, 1)


def _parse_number(code: str, *_: Any) -> Any:
    """Stands in for sympy's eval: a number, which the LaTeX route has sympify read, and nothing else."""
    import sympy

    match = _NUMBER.fullmatch(code)
    if match is None:
        raise ValueError("text is never evaluated")
    return sympy.Integer(int(match[2])) if match[1] == "Integer" else sympy.Float(match[2])


@dataclass
class _Child:
    pid: int
    job: int
    pipe: int
    deadline: float


class _ForkServer:
    """Forks a child for each job, at most `workers` at once, and kills those past `seconds`."""

    def __init__(self, workers: int, seconds: float, memory: int) -> None:
        self.workers, self.seconds, self.memory = workers, seconds, memory
        self.waiting: deque[dict[str, Any]] = deque()
        self.children: dict[int, _Child] = {}
        self.selector = selectors.DefaultSelector()
        self.unread = b""

    def serve(self) -> None:
        self.selector.register(0, selectors.EVENT_READ)
        while True:
            due = min((child.deadline for child in self.children.values()), default=None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            for key, _ in self.selector.select(wait):
                if key.fd == 0:
                    if not self.receive():
                        return self.stop()
                else:
                    self.finish(self.children[key.fd], _RESULTS.get(os.read(key.fd, 1)))
            for child in [c for c in self.children.values() if c.deadline <= time.monotonic()]:
                os.kill(child.pid, signal.SIGKILL)
                self.finish(child, None)
            while self.waiting and len(self.children) < self.workers:
                self.fork(self.waiting.popleft())

    def receive(self) -> bool:
        chunk = os.read(0, 1 << 16)
        *lines, self.unread = (self.unread + chunk).split(b"\n")
        self.waiting.extend(json.loads(line) for line in lines)
        return bool(chunk)

    def fork(self, job: dict[str, Any]) -> None:
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            self.answer(job, theirs)
        os.close(theirs)
        child = _Child(pid, job["id"], ours, time.monotonic() + self.seconds)
        self.children[ours] = child
        self.selector.register(ours, selectors.EVENT_READ)

    def answer(self, job: dict[str, Any], pipe: int) -> None:
        """The child's whole life. It never returns: a crash is an undecided question."""
        try:
            os.nice(5)  # the nursery, which must kill in time, and the event loop come first
            cpu = int(self.seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            verdict = grade(job["a"], job["b"], math.ceil(self.seconds))
            os.write(pipe, b"N" if verdict is None else b"T" if verdict else b"F")
        finally:
            os._exit(0)

    def finish(self, child: _Child, verdict: bool | None) -> None:
        self.selector.unregister(child.pipe)
        os.close(child.pipe)
        del self.children[child.pipe]
        os.waitpid(child.pid, 0)
        _send({"id": child.job, "verdict": verdict})

    def stop(self) -> None:
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)


def _ignore_errors_from_here() -> None:
    """Send standard error nowhere: the parent reads it only until the nursery is ready."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _send(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def main(workers: int, seconds: float, memory: int) -> None:
    """Serves until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's Ctrl-C reaches us too; it closes us itself
    _warm_up()
    _ignore_errors_from_here()
    _send({"ready": True})
    _ForkServer(workers, seconds, memory).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
