"""The reward for code, in a sandbox that only pretends to run it; `tests/training/sandbox` has a real one."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import reply
from training.rewards.unit_tests import UnitTests, last_code
from training.sandbox import ProgramResult, Sandbox, SandboxError, SandboxLimits
from training.types import Completion, Problem

PROBLEM = Problem("1", "Double.", reward="tests", tests="a\nb\nc")
"""Each line stands for an assertion."""


@dataclass(frozen=True)
class FakeSandbox(Sandbox):
    """A sandbox that passes code with every line of the tests, and remembers the code."""

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
def test_code_must_pass_every_assertion(replies: list[Completion]) -> None:
    """1.0 where the last block of a finished reply passes all, else 0.0: there is no part credit."""
    rewards = UnitTests(FakeSandbox(SandboxLimits()))(PROBLEM, replies)
    for sent, value in zip(replies, rewards, strict=True):
        code = last_code(sent.answer)
        passing = sent.finished and code is not None and {"a", "b", "c"} <= set(code.split())
        assert value == float(passing)


@given(
    st.lists(completions, max_size=6).flatmap(lambda group: st.tuples(st.just(group), st.permutations(group)))
)
def test_order_does_not_matter(orders: tuple[list[Completion], list[Completion]]) -> None:
    """The same replies in another order get the same rewards."""
    first, second = (
        dict(zip(order, UnitTests(FakeSandbox(SandboxLimits()))(PROBLEM, order), strict=True))
        for order in map(tuple, orders)
    )
    assert first == second


@given(st.lists(completions, max_size=6))
def test_equal_code_runs_once(replies: list[Completion]) -> None:
    """The code of truncated replies never runs, and nothing runs without tests."""
    sandbox = FakeSandbox(SandboxLimits())
    UnitTests(sandbox)(PROBLEM, replies)
    codes = {last_code(sent.answer) for sent in replies if sent.finished} - {None}
    assert sorted(sandbox.ran) == sorted(codes)
    sandbox = FakeSandbox(SandboxLimits())
    assert UnitTests(sandbox)(Problem("1", "Double."), replies) == [None] * len(replies)
    assert sandbox.ran == []


class BrokenSandbox(Sandbox):
    """A sandbox that can't start."""

    def run(self, code: str, tests: str) -> ProgramResult:
        """See `Sandbox`."""
        raise SandboxError("no sandbox: no namespaces")


def test_a_broken_sandbox_is_an_error() -> None:
    """The run fails; no reply gets 0.0 for it."""
    with pytest.raises(SandboxError, match="no namespaces"):
        UnitTests(BrokenSandbox(SandboxLimits()))(PROBLEM, [reply("```python\na\nb\nc\n```")])


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
    """It is the last closed block that names Python or no language."""
    assert last_code(text) == code
