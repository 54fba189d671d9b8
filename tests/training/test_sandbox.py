"""Code that nobody vouches for: what it can't do, and how it can't cheat."""

import sys
from collections.abc import Iterator
from textwrap import indent

import pytest

from tests.training.rewards.making import SUM, reply
from tests.training.sandbox_cases import CHEATS, ENDLESS, FORBIDDEN, HONEST
from training.rewards.unit_tests import UnitTests, last_code
from training.sandbox import Limits, Sandbox, SandboxError, open_sandbox
from training.types import Row

LIMITS = Limits(seconds=3.0, cpu=2, memory=256 << 20)
DOUBLE = "def double(x):\n    return 2 * x\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox, where this machine can give one."""
    try:
        yield open_sandbox(LIMITS)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", HONEST)
def test_honest_code_passes(sandbox: Sandbox, name: str) -> None:
    """Functions, classes, generators, exceptions and changes in place are seen as if nothing lay between."""
    outcome = sandbox.run(*HONEST[name].split("# tests"))
    assert outcome.passed, outcome.why


@pytest.mark.parametrize(
    "code", ["def double(x):\n    return 3 * x", "def triple(x):\n    return x", "def double(x:", "1 / 0", ""]
)
def test_wrong_code_fails(sandbox: Sandbox, code: str) -> None:
    """A wrong result, a missing name, a syntax error and a crash are no pass."""
    assert not sandbox.run(code, "assert double(2) == 4").passed


@pytest.mark.parametrize("name", CHEATS)
def test_cheating_fails(sandbox: Sandbox, name: str) -> None:
    """Ending early, faking the verdict, patching what asserts, and lying objects don't pass."""
    assert not sandbox.run(*CHEATS[name].split("# tests")).passed


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_code_can_t_do(sandbox: Sandbox, name: str) -> None:
    """No network, no file of the machine, nothing written, no process, little memory, no rights."""
    attempt = (
        "def attempt():\n    try:\n"
        + indent(FORBIDDEN[name].strip(), " " * 8)
        + "\n    except BaseException as error:\n        return type(error).__name__\n    return ''"
    )
    outcome = sandbox.run(attempt, "assert attempt() != '', 'it could'")
    assert outcome.passed, outcome.why


@pytest.mark.parametrize("name", ENDLESS)
def test_it_always_ends(sandbox: Sandbox, name: str) -> None:
    """Code that never ends, forks, eats memory or ignores signals is ended, and has failed."""
    short = Sandbox(Limits(seconds=1.5, cpu=1, memory=sandbox.limits.memory))
    assert not short.run(ENDLESS[name], "assert double(2) == 4").passed


def test_without_namespaces_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without them there is no sandbox, and the error says so; nothing is run."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="Linux namespaces"):
        open_sandbox()


def test_an_impossible_limit_refuses() -> None:
    """Where Python can't even start within the limits the machine is at fault, not the code."""
    with pytest.raises(SandboxError, match="no sandbox"):
        open_sandbox(Limits(memory=1 << 20))


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


def test_a_group_is_judged_by_its_tests(sandbox: Sandbox) -> None:
    """Each reply's last block runs; without code, or cut off, a reply fails; equal code runs once."""
    row = Row("1", "Double.", reward="tests", tests="assert double(2) == 4")
    good, bad = f"So:\n```python\n{DOUBLE}```", "```python\ndef double(x):\n    return x\n```"
    replies = [reply(good), reply(bad), reply("no code"), reply(good, finished=False), reply(good)]
    assert UnitTests(sandbox)(row, replies) == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert UnitTests(sandbox)(SUM, replies[:2]) == [None, None]
