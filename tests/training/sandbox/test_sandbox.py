"""Untrusted code: what it can't do, and how it can't cheat."""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

import training.sandbox
from tests.training.rewards.making import SUM, reply
from tests.training.sandbox_cases import CHEATS, ENDLESS, FORBIDDEN, HONEST
from training.rewards.unit_tests import UnitTests
from training.sandbox import (
    Sandbox,
    SandboxError,
    SandboxLimits,
    directory_listing,
    open_sandbox,
    python_directories,
)
from training.types import Problem

LIMITS = SandboxLimits(seconds=3.0, cpu=2, memory=256 << 20)
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
    """Functions, classes, generators, exceptions and changes in place work as in one process."""
    result = sandbox.run(*HONEST[name].split("# tests"))
    assert result.passed, result.why


@pytest.mark.parametrize(
    "code", ["def double(x):\n    return 3 * x", "def triple(x):\n    return x", "def double(x:", "1 / 0", ""]
)
def test_wrong_code_fails(sandbox: Sandbox, code: str) -> None:
    """A wrong result, a missing name, a syntax error and a crash don't pass."""
    assert not sandbox.run(code, "assert double(2) == 4").passed


@pytest.mark.parametrize("name", CHEATS)
def test_cheating_fails(sandbox: Sandbox, name: str) -> None:
    """Ending early, faking the verdict, patching assertions, and lying objects don't pass."""
    assert not sandbox.run(*CHEATS[name].split("# tests")).passed


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_code_can_t_do(sandbox: Sandbox, name: str) -> None:
    """No network, no file of the machine, nothing written, no process, little memory, no rights."""
    attempt = (
        "def attempt():\n    try:\n"
        + indent(FORBIDDEN[name].strip(), " " * 8)
        + "\n    except BaseException as error:\n        return type(error).__name__\n    return ''"
    )
    result = sandbox.run(attempt, "assert attempt() != '', 'it could'")
    assert result.passed, result.why


@pytest.mark.parametrize("name", ENDLESS)
def test_it_always_ends(sandbox: Sandbox, name: str) -> None:
    """Code that never ends, forks, eats memory or ignores signals is killed and fails."""
    short = Sandbox(SandboxLimits(seconds=1.5, cpu=1, memory=sandbox.limits.memory))
    assert not short.run(ENDLESS[name], "assert double(2) == 4").passed


def test_without_namespaces_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without them there is no sandbox, and the error says so; nothing runs."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="Linux namespaces"):
        open_sandbox()


def test_an_impossible_limit_refuses() -> None:
    """Where Python can't even start within the limits, that is an error of the machine, not of the code."""
    with pytest.raises(SandboxError, match="no sandbox"):
        open_sandbox(SandboxLimits(memory=1 << 20))


@pytest.fixture
def home() -> Iterator[str]:
    """A directory in /home, where an ordinary user's Python may lie."""
    try:
        with tempfile.TemporaryDirectory(dir="/home") as directory:
            yield directory
    except OSError as error:
        pytest.skip(f"no directory can be made in /home ({error})")


@pytest.mark.usefixtures("sandbox")
def test_a_python_may_lie_in_a_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the directories above it are in the sandbox, and hold nothing else."""
    paths = sorted([*training.sandbox._python_paths(), home])
    monkeypatch.setattr(training.sandbox, "_python_paths", lambda: paths)
    result = open_sandbox(LIMITS).run(
        "import os\ndef homes():\n    return os.listdir('/home')",
        f"assert homes() == [{Path(home).name!r}], homes()",
    )
    assert result.passed, result.why


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("inside", [False, True], ids=["beside", "within"])
def test_a_sandbox_that_shows_more_is_refused(
    tmp_path: Path, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe sees a directory beside those of Python, and a temporary file within one of those."""
    command, python = training.sandbox._command, training.sandbox._python_paths

    def leaking(limits: SandboxLimits, *, programs: bool) -> list[str]:
        *start, options = command(limits, programs=programs)
        fields = json.loads(options)
        return [*start, json.dumps({**fields, "paths": sorted({*fields["paths"], str(tmp_path)})})]

    monkeypatch.setattr(training.sandbox, "_command", leaking)
    if inside:
        tmp_path.chmod(0o755)  # root becomes nobody in there, who must be able to read it
        monkeypatch.setattr(training.sandbox, "_python_paths", lambda: sorted([*python(), str(tmp_path)]))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SandboxError, match="it sees files"):
        open_sandbox(LIMITS)


@pytest.mark.usefixtures("sandbox")
def test_it_works_with_any_umask() -> None:
    """A umask that excludes others must not exclude the code from Python's library."""
    mask = os.umask(0o077)
    try:
        assert open_sandbox(LIMITS).run("import sqlite3\n" + DOUBLE, "assert double(2) == 4").passed
    finally:
        os.umask(mask)


def test_the_standard_library_is_whole(sandbox: Sandbox) -> None:
    """Modules that need the machine's shared libraries can be imported, where this Python has them."""
    names = ["bz2", "ctypes", "decimal", "hashlib", "lzma", "sqlite3", "ssl", "zlib"]
    present = [name for name in names if importlib.util.find_spec(f"_{name}") or name == "zlib"]
    code = "\n".join(f"import {name}" for name in present) + "\ndef whole():\n    return True"
    result = sandbox.run(code, "assert whole() is True")
    assert result.passed, result.why


def among(*directories: str) -> Callable[[str], bool]:
    """Return a check whether a machine with these directories has a given one."""
    return lambda path: any(Path(directory).is_relative_to(path) for directory in directories)


DEBIAN = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib/python3.11", "/lib64")
HOME = "/home/ann/.local/share/uv/python/cpython-3.11-linux"


@pytest.mark.parametrize(
    ("prefix", "library", "multiarch", "directories", "paths"),
    [
        (
            HOME, f"{HOME}/lib/python3.11", "x86_64-linux-gnu", DEBIAN,
            [f"{HOME}/lib", "/lib/x86_64-linux-gnu", "/lib64", "/usr/lib/x86_64-linux-gnu"],
        ),
        (
            "/usr", "/usr/lib/python3.11", "x86_64-linux-gnu", DEBIAN,
            ["/lib/x86_64-linux-gnu", "/lib64", "/usr/lib/python3.11", "/usr/lib/x86_64-linux-gnu"],
        ),
        (
            "/usr/local", "/usr/local/lib/python3.11", "x86_64-linux-gnu", DEBIAN,
            ["/lib/x86_64-linux-gnu", "/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib/python3.11"],
        ),
        (
            "/usr", "/usr/lib64/python3.11", "x86_64-linux-gnu", ("/lib", "/lib64", "/usr/lib", "/usr/lib64"),
            ["/lib", "/lib64", "/usr/lib", "/usr/lib64"],
        ),
        ("/usr", "/usr/lib/python3.11", "", ("/lib", "/usr/lib"), ["/lib", "/usr/lib"]),
    ],
    ids=["uv", "Debian", "Docker", "Fedora", "Alpine"],
)  # fmt: skip
def test_what_python_needs(
    prefix: str, library: str, multiarch: str, directories: tuple[str, ...], paths: list[str]
) -> None:
    """Its library and the shared ones: no programs, and nothing else of the same prefix."""
    assert python_directories(prefix, [library], multiarch, among(library, *directories)) == paths


names = st.lists(st.sampled_from(["a", "b", "lib", "x"]), min_size=1, max_size=4)


@given(st.sets(names.map(lambda parts: "/" + "/".join(parts)), min_size=1, max_size=6))
def test_the_listing_leads_to_the_paths_only(paths: set[str]) -> None:
    """The listing leads from the root to each path, and every entry leads to a path."""
    listing = directory_listing(paths)
    for path in map(Path, paths):
        assert all(child.name in listing[str(child.parent)] for child in (path, *path.parents[:-1]))
    for place, children in listing.items():
        for child in children:
            assert any(Path(path).is_relative_to(Path(place, child)) for path in paths)


def test_a_group_is_judged_by_its_tests(sandbox: Sandbox) -> None:
    """Each reply's last block runs; a reply without code and a truncated reply fail."""
    problem = Problem("1", "Double.", reward="tests", tests="assert double(2) == 4")
    good, bad = f"So:\n```python\n{DOUBLE}```", "```python\ndef double(x):\n    return x\n```"
    replies = [reply(good), reply(bad), reply("no code"), reply(good, finished=False), reply(good)]
    assert UnitTests(sandbox)(problem, replies) == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert UnitTests(sandbox)(SUM, replies[:2]) == [None, None]
