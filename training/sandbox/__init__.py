"""Runs code that nobody vouches for, and tests of it, where it can do no harm.

    sandbox = open_sandbox()              # raises SandboxError where the machine can't give one
    sandbox.run(code, "assert add(1, 2) == 3").passed

Covered: no network, no file but Python's libraries and the shared ones that they load, those read-only
(see `needed`), no other process in sight, limits on processor time, wall time, memory, processes and open
files; and tests that the code can't see, patch, end, or lie to by objects that equal everything (see
`training.sandbox.remote`).

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
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from training.sandbox.jail import DEVICES, SandboxLimits

__all__ = ["ProgramResult", "Sandbox", "SandboxError", "SandboxLimits", "needed", "open_sandbox", "shown"]

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
    """Whether the tests passed, and if not, why in a few words: the code's own, so they prove nothing."""

    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One that has been seen to hold; made by `open_sandbox`. May be used by several threads at once."""

    limits: SandboxLimits

    def run(self, code: str, tests: str) -> ProgramResult:
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
            return ProgramResult(False, "the time is over")
        except OSError as error:
            raise SandboxError(f"no sandbox: {error}") from error
        stands, _, verdict = done.stdout.partition(b"\n")
        if stands != b'{"stands": true}':
            raise SandboxError(
                f"no sandbox: {done.stderr.decode(errors='replace').strip() or 'it did not start'}"
            )
        if not verdict.strip():
            return ProgramResult(False, "the time is over, or the tests were ended")
        told = json.loads(verdict)
        return ProgramResult(told["passed"], told["why"])


def open_sandbox(limits: SandboxLimits | None = None) -> Sandbox:
    """A sandbox that code was seen not to get out of. Raises SandboxError where there can be none here."""
    if sys.platform != "linux":
        raise SandboxError("no sandbox: it is made of Linux namespaces")
    sandbox = Sandbox(limits or SandboxLimits())
    try:
        with tempfile.NamedTemporaryFile() as file:
            outcome = sandbox.run(
                _PROBE,
                _PROBED.format(
                    hidden=["/etc/passwd", "/proc/1", file.name],
                    shown=shown((*_python_paths(), *DEVICES)),
                    memory=sandbox.limits.memory,
                    processes=sandbox.limits.processes,
                ),
            )
    except OSError as error:
        raise SandboxError(f"no sandbox: no file can be made that it must not see ({error})") from error
    if not outcome.passed:
        raise SandboxError(f"no sandbox: it does not hold on this machine ({outcome.why})")
    return sandbox


def _command(limits: SandboxLimits) -> list[str]:
    # The interpreter itself, not a virtual environment's link to it, and nothing but its own library.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    root = Path(__file__).parents[2]
    told = json.dumps({"limits": asdict(limits), "start": _START_SECONDS, "paths": _python_paths()})
    return [python, "-I", "-S", "-B", "-c", _START, str(root), told]


def _python_paths() -> list[str]:
    """Where this Python's own libraries and the shared ones that they load lie; none within another."""
    prefix = os.path.realpath(sys.base_prefix)
    # In a virtual environment both are still those of the Python that made it.
    library = (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
    )
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    return needed(prefix, list(map(os.path.realpath, library)), multiarch, os.path.isdir)


def needed(
    prefix: str, library: Sequence[str], multiarch: str, is_directory: Callable[[str], bool]
) -> list[str]:
    """The directories that a Python loads from: its library and the shared libraries'; none within another.

    A Python with a prefix of its own, as uv, pyenv and conda give it one, has shared libraries of its own
    as well, beside its library. A prefix that it shares with the whole system holds much else, so of that
    its library alone is taken. `multiarch` is Debian's name of the machine: there the shared libraries are
    in directories of that name, elsewhere in those that the loader searches.
    """
    own = [os.path.dirname(path) for path in library] if prefix not in _SYSTEM else []
    machine = [f"{place}/{multiarch}" for place in ("/lib", "/usr/lib") if multiarch]
    if not any(map(is_directory, machine)):
        machine = ["/lib", "/usr/lib", "/usr/lib64"]
    wanted = {path for path in (*library, *own, *machine, "/lib64") if is_directory(path)}
    return sorted(
        path
        for path in wanted
        if not any(path != other and Path(path).is_relative_to(other) for other in wanted)
    )


def shown(paths: Iterable[str]) -> dict[str, list[str]]:
    """What each directory above these paths holds where there is nothing but them."""
    held: dict[str, set[str]] = defaultdict(set)
    for path in map(Path, paths):
        for child in (path, *path.parents[:-1]):
            held[str(child.parent)].add(child.name)
    return {place: sorted(names) for place, names in sorted(held.items())}


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
assert not sees_files({hidden}, {shown}), "it sees files"
assert not takes_memory({memory}), "it takes memory"
assert not starts_processes({processes}), "it starts processes"
"""
