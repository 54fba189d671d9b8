"""A sandbox that runs untrusted code, and tests of it, where the code can do no harm.

    sandbox = open_sandbox()              # raises SandboxError where the machine can't give one
    sandbox.run(code, "assert add(1, 2) == 3").passed
    sandbox.run_program(code, [ProgramCase("1 2", "3")]).passed

The sandbox gives:

- no network;
- no file but Python's libraries and the shared ones that they load, all read-only (see `python_directories`);
- no other process in sight;
- limits on processor time, wall time, memory, processes and open files;
- tests that the code can't see, patch or end, and can't deceive with objects that equal everything (see
  `training.sandbox.remote`), and outputs that it can't look up (see `training.sandbox.programs`).

It does not cover:

- faults of the kernel itself, because there is no filter of system calls;
- memory that belongs to no process, as System V shared memory, which the wall time alone bounds;
- code that knows by heart what a test's arguments should give.

It can't test functions named like a built-in, arguments that aren't plain values, and changes in place by a
function that returns something. A program can't start threads, nor open its input as /dev/stdin.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.sandbox.jail import DEVICES, SandboxLimits
from training.types import ProgramCase

__all__ = [
    "ProgramResult",
    "Sandbox",
    "SandboxError",
    "SandboxLimits",
    "directory_listing",
    "open_sandbox",
    "python_directories",
]

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from training.sandbox.jail import main; del sys.path[0]; main(sys.argv[2])"
)
_SYSTEM = {"/", "/usr", "/usr/local"}  # prefixes that a Python shares with other programs
_START_SECONDS = 10.0  # until it stands, on a busy machine; the run's own time begins then


class SandboxError(Exception):
    """The machine can't give a sandbox, or has failed to; the message says what was refused."""


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Whether the tests passed. If not, `why` says it in a few words, which the code may have written."""

    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that has been tested on this machine; `open_sandbox` makes one.

    Several threads may use it at once.
    """

    limits: SandboxLimits

    def run(self, code: str, tests: str) -> ProgramResult:
        """Run the tests, which are Python that calls what the code defines. Blocks. Raises SandboxError.

        The code can import the standard library only.
        """
        return _run({"code": code, "tests": tests}, self.limits, programs=False)

    def run_program(self, code: str, cases: Sequence[ProgramCase]) -> ProgramResult:
        """Run the code as a program on each case until one fails. Blocks. Raises SandboxError.

        A case has its own limit of wall and processor time, else the sandbox's. See
        `training.sandbox.programs` for what passes.
        """
        limited = [self._with_limits(case) for case in cases]
        # The examiner keeps each case's time. Starting and comparing take some, too, which is no case's own.
        seconds = 2 * sum(case["seconds"] for case in limited) + _START_SECONDS
        return _run({"code": code, "cases": limited}, replace(self.limits, seconds=seconds), programs=True)

    def _with_limits(self, case: ProgramCase) -> Mapping[str, Any]:
        limits = {"seconds": self.limits.seconds, "cpu": self.limits.cpu}
        if case.seconds is not None:
            limits = {"seconds": case.seconds, "cpu": max(1, math.ceil(case.seconds))}
        return {"input": case.input, "output": case.output, **limits}


def open_sandbox(limits: SandboxLimits | None = None) -> Sandbox:
    """Return a sandbox that code was seen not to escape. Raises SandboxError where there can be none here."""
    if sys.platform != "linux":
        raise SandboxError("no sandbox: it is made of Linux namespaces")
    sandbox = Sandbox(limits or SandboxLimits())
    try:
        with tempfile.NamedTemporaryFile() as file:
            facts = {
                "hidden": ["/etc/passwd", "/proc/1", file.name],
                "shown": directory_listing((*_python_paths(), *DEVICES)),
                "memory": sandbox.limits.memory,
                "processes": sandbox.limits.processes,
            }
            result = sandbox.run(_PROBE, _PROBE_TESTS.format(**facts))
            if result.passed:
                case = ProgramCase(json.dumps(facts), "nothing")
                result = sandbox.run_program(_PROBE + _PROBE_PROGRAM, [case])
    except OSError as error:
        raise SandboxError(f"no sandbox: no file can be made that it must not see ({error})") from error
    if not result.passed:
        raise SandboxError(f"no sandbox: it does not hold on this machine ({result.why})")
    return sandbox


def _run(job: Mapping[str, Any], limits: SandboxLimits, *, programs: bool) -> ProgramResult:
    """Start the processes of `training.sandbox.jail`, hand them the job and read their verdict."""
    try:
        process = subprocess.run(
            _command(limits, programs=programs),
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=limits.seconds + 2 * _START_SECONDS,
            check=False,
            env={},
            cwd="/",
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return ProgramResult(False, "the time is over")
    except OSError as error:
        raise SandboxError(f"no sandbox: {error}") from error
    stands, _, verdict = process.stdout.partition(b"\n")
    if stands != b'{"stands": true}':
        reason = process.stderr.decode(errors="replace").strip() or "it did not start"
        raise SandboxError(f"no sandbox: {reason}")
    if not verdict.strip():
        return ProgramResult(False, "the time is over, or the tests were ended")
    fields = json.loads(verdict)
    return ProgramResult(fields["passed"], fields["why"])


def _command(limits: SandboxLimits, *, programs: bool) -> list[str]:
    # The interpreter itself, not a virtual environment's link to it, and nothing but its own library.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    root = Path(__file__).parents[2]
    options = {
        "limits": asdict(limits),
        "start": _START_SECONDS,
        "paths": _python_paths(),
        "programs": programs,
    }
    return [python, "-I", "-S", "-B", "-c", _START, str(root), json.dumps(options)]


def _python_paths() -> list[str]:
    """Return the directories of this Python's libraries and their shared ones; none within another."""
    prefix = os.path.realpath(sys.base_prefix)
    # In a virtual environment both are still those of the Python that made it.
    library = (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
    )
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    return python_directories(prefix, list(map(os.path.realpath, library)), multiarch, os.path.isdir)


def python_directories(
    prefix: str, library: Sequence[str], multiarch: str, is_directory: Callable[[str], bool]
) -> list[str]:
    """Return the directories that a Python loads from: its library and shared libraries; none within another.

    uv, pyenv and conda give a Python a prefix of its own, where it has shared libraries of its own beside its
    library. A prefix that it shares with the whole system holds much else, so only its library counts there.
    `multiarch` is Debian's name of the machine. Debian has shared libraries in directories of that name,
    other systems in those that the loader searches.
    """
    own = [os.path.dirname(path) for path in library] if prefix not in _SYSTEM else []
    machine = [f"{directory}/{multiarch}" for directory in ("/lib", "/usr/lib") if multiarch]
    if not any(map(is_directory, machine)):
        machine = ["/lib", "/usr/lib", "/usr/lib64"]
    paths = {path for path in (*library, *own, *machine, "/lib64") if is_directory(path)}
    return sorted(
        path
        for path in paths
        if not any(path != other and Path(path).is_relative_to(other) for other in paths)
    )


def directory_listing(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return what each directory above these paths holds, where nothing else is there."""
    names: dict[str, set[str]] = defaultdict(set)
    for path in map(Path, paths):
        for child in (path, *path.parents[:-1]):
            names[str(child.parent)].add(child.name)
    return {directory: sorted(children) for directory, children in sorted(names.items())}


_PROBE = """
import os, socket

def reaches_the_network():
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True

def writes_files():
    for place in ("/", "/tmp", "/dev", "/usr/lib", "."):
        try:
            open(os.path.join(place, "probe"), "w")
            return True
        except OSError:
            pass
    return False

def sees_files(hidden, shown):
    if any(os.path.exists(place) for place in hidden):
        return True
    return any(sorted(os.listdir(place)) != names for place, names in shown.items())

def starts_processes(limit):
    for _ in range(limit):
        try:
            if not os.fork():
                while True:
                    pass
        except OSError:
            return False
    return True

def takes_memory(size):
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False
"""
_PROBE_TESTS = """
assert not reaches_the_network(), "it reaches the network"
assert not writes_files(), "it writes files"
assert not sees_files({hidden}, {shown}), "it sees files"
assert not takes_memory({memory}), "it takes memory"
assert not starts_processes({processes}), "it starts processes"
"""
_PROBE_PROGRAM = """
import json

facts = json.loads(input())
leaks = {
    "it reaches the network": reaches_the_network(),
    "it writes files": writes_files(),
    "it sees files": sees_files(facts["hidden"], facts["shown"]),
    "it takes memory": takes_memory(facts["memory"]),
    "it starts processes": starts_processes(facts["processes"]),
}
print(next((leak for leak, leaking in leaks.items() if leaking), "nothing"))
"""
