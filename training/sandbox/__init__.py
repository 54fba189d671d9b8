"""Runs code that nobody vouches for, and tests of it, where it can do no harm.

    sandbox = open_sandbox()              # raises SandboxError where the machine can't give one
    sandbox.run(code, "assert add(1, 2) == 3").passed

Covered: no network, no file but Python's own and those read-only, no other process in sight, limits
on processor time, wall time, memory, processes and open files; and tests that the code can't see,
patch, end, or lie to by objects that equal everything (see `training.sandbox.remote`).

Not covered: faults of the kernel itself, for there is no filter of system calls; memory that belongs
to no process, as System V shared memory, which the wall time alone bounds; and code that knows by
heart what a test's arguments should give. What can't be tested: functions named like a
built-in, arguments that aren't plain values, and changes in place by a function that returns something.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from training.sandbox.jail import Limits

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxError", "open_sandbox"]

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from training.sandbox.jail import main; del sys.path[0]; main(sys.argv[2])"
)
_START_SECONDS = 10.0  # until it stands, on a busy machine; the run's own time begins then


class SandboxError(Exception):
    """The machine can't give a sandbox, or has failed to; the message says what was refused."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the tests passed, and if not, why in a few words: the code's own, so they prove nothing."""

    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One that has been seen to hold; made by `open_sandbox`. May be used by several threads at once."""

    limits: Limits

    def run(self, code: str, tests: str) -> Outcome:
        """Runs the tests, Python that calls what the code defines. Blocks. Raises SandboxError.

        Only the standard library can be imported.
        """
        try:
            done = subprocess.run(
                _command(self.limits),
                input=json.dumps({"code": code, "tests": tests}).encode(),
                capture_output=True,
                timeout=self.limits.seconds + 2 * _START_SECONDS,
                check=False,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return Outcome(False, "the time is over")
        except OSError as error:
            raise SandboxError(f"no sandbox: {error}") from error
        stands, _, verdict = done.stdout.partition(b"\n")
        if stands != b'{"stands": true}':
            raise SandboxError(
                f"no sandbox: {done.stderr.decode(errors='replace').strip() or 'it did not start'}"
            )
        if not verdict.strip():
            return Outcome(False, "the time is over, or the tests were ended")
        told = json.loads(verdict)
        return Outcome(told["passed"], told["why"])


def open_sandbox(limits: Limits | None = None) -> Sandbox:
    """A sandbox that code was seen not to get out of. Raises SandboxError where there can be none here."""
    if sys.platform != "linux":
        raise SandboxError("no sandbox: it is made of Linux namespaces")
    sandbox = Sandbox(limits or Limits())
    outcome = sandbox.run(
        _PROBE, _PROBED.format(memory=sandbox.limits.memory, processes=sandbox.limits.processes)
    )
    if not outcome.passed:
        raise SandboxError(f"no sandbox: it does not hold on this machine ({outcome.why})")
    return sandbox


def _command(limits: Limits) -> list[str]:
    # The interpreter itself, not a virtual environment's link to it, and nothing but its own library.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    root = Path(__file__).parents[2]
    told = json.dumps({"limits": asdict(limits), "start": _START_SECONDS, "paths": _python_paths()})
    return [python, "-I", "-S", "-B", "-c", _START, str(root), told]


def _python_paths() -> list[str]:
    """Where Python and the libraries that it loads lie; none within another."""
    wanted = {
        os.path.realpath(sys.base_prefix),
        *(path for path in ("/usr/lib", "/lib", "/lib64") if os.path.isdir(path)),
    }
    return sorted(
        path
        for path in wanted
        if not any(path != other and Path(path).is_relative_to(other) for other in wanted)
    )


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

def sees_files():
    return any(os.path.exists(place) for place in ("/etc/passwd", "/proc/1", "/home", "/root/.ssh"))

def starts_processes(most):
    for _ in range(most):
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
_PROBED = """
assert not reaches_the_network(), "it reaches the network"
assert not writes_files(), "it writes files"
assert not sees_files(), "it sees files"
assert not takes_memory({memory}), "it takes memory"
assert not starts_processes({processes}), "it starts processes"
"""
