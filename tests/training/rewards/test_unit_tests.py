"""The reward for code, in a sandbox that only pretends to run it; see `test_sandbox` for a real one."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import reply
from training.rewards.unit_tests import UnitTests, last_code
from training.sandbox import ProgramResult, Sandbox, SandboxError, SandboxLimits
from training.types import Completion, Problem

ROW = Problem("1", "Double.", reward="tests", tests="a\nb\nc")
"""Each line stands for an assertion."""


@dataclass(frozen=True)
class Pretended(Sandbox):
    """Passes code that holds every line of the tests; keeps what it was given to run."""

    ran: list[str] = field(default_factory=list)

    def run(self, code: str, tests: str) -> ProgramResult:
        """See `Sandbox`."""
        self.ran.append(code)
        return ProgramResult(set(tests.split()) <= set(code.split()))


blocks = st.lists(st.sampled_from("abcd"), max_size=5).map(
    lambda lines: "\n".join(("```python", *lines, "```"))
)
completions = st.builds(
    lambda parts, finished: reply("\nthen\n".join(parts), finished=finished),
    st.lists(blocks | st.sampled_from(["a b c", "```sh\na\nb\nc\n```"]), max_size=3),
    st.booleans(),
)


@given(st.lists(completions, max_size=6))
def test_only_what_passes_every_assertion_earns(replies: list[Completion]) -> None:
    """1.0 where the last block of a whole reply holds all, else 0.0: there is no part credit."""
    worth = UnitTests(Pretended(SandboxLimits()))(ROW, replies)
    for each, value in zip(replies, worth, strict=True):
        code = last_code(each.answer)
        whole = each.finished and code is not None and {"a", "b", "c"} <= set(code.split())
        assert value == float(whole)


@given(
    st.lists(completions, max_size=6).flatmap(lambda each: st.tuples(st.just(each), st.permutations(each)))
)
def test_order_does_not_matter(orders: tuple[list[Completion], list[Completion]]) -> None:
    """The same replies in another order earn the same, each by itself."""
    first, second = (
        dict(zip(order, UnitTests(Pretended(SandboxLimits()))(ROW, order), strict=True))
        for order in map(tuple, orders)
    )
    assert first == second


@given(st.lists(completions, max_size=6))
def test_each_different_code_runs_once(replies: list[Completion]) -> None:
    """Cut-off replies' code is never run, and without tests nothing is."""
    sandbox = Pretended(SandboxLimits())
    UnitTests(sandbox)(ROW, replies)
    codes = {last_code(each.answer) for each in replies if each.finished} - {None}
    assert sorted(sandbox.ran) == sorted(codes)
    sandbox = Pretended(SandboxLimits())
    assert UnitTests(sandbox)(Problem("1", "Double."), replies) == [None] * len(replies)
    assert sandbox.ran == []


class Broken(Sandbox):
    """One that can't start."""

    def run(self, code: str, tests: str) -> ProgramResult:
        """See `Sandbox`."""
        raise SandboxError("no sandbox: no namespaces")


def test_without_its_sandbox_nobody_is_judged() -> None:
    """A sandbox that fails is an error of the run's, not a reply's 0.0."""
    with pytest.raises(SandboxError, match="no namespaces"):
        UnitTests(Broken(SandboxLimits()))(ROW, [reply("```python\na\nb\nc\n```")])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("First\n```py\na\n```\nthen\n```Python3\nb\n\nc\n```\nend", "b\n\nc\n"),
        ("```python\na\n```\n```sh\nls\n```", "a\n"),
        ("~~~~python\n```\n~~~~", "```\n"),
        ("```python\na", None),
        ("```json\n{}\n```", None),
        ("a = 1", None),
    ],
)
def test_the_last_block_is_the_code(text: str, code: str | None) -> None:
    """The last closed block of Python, or of no named language, is what is run."""
    assert last_code(text) == code
