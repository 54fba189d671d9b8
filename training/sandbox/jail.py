"""Inside the sandbox: gives up every right, then runs code and tests in two processes.

There are three processes. The first makes the namespaces and keeps the time. The second is alone with the
third in them; it runs the tests and gives the verdict. The third runs the code, in a process namespace of
its own, where it can't even name the others. For cases of a program it starts a child for each of them.

Namespaces are the kernel's (user, mount, process, network, IPC, host name); see unshare(2), pivot_root(2),
mount_setattr(2). Standard library alone, because nothing else is there.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import select
import signal
import socket
import sys
from dataclasses import dataclass, replace
from typing import Any

from training.sandbox.programs import examine_program, serve_programs
from training.sandbox.remote import Channel, examine, serve

__all__ = ["DEVICES", "SandboxLimits", "main"]

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
_SPACES = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET

_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x1000, 0x4000, 0x40000, 2, 4
_MNT_DETACH = 2
_MOUNT_SETATTR = 442  # the same number on every architecture
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITY_VERSION = 0x20080522
_NOBODY = 65534
DEVICES = ("/dev/null", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The limits of one run: `seconds` of wall time, `cpu` seconds of processor time, `memory` in bytes.

    For a program they hold for each case. `processes` counts threads as well. Memory is address space and
    counts for each process. So all together, with the tests' own, may take `memory` * (`processes` + 1).
    `files` may be open at once.
    """

    seconds: float = 5.0
    cpu: int = 4
    memory: int = 512 << 20
    processes: int = 1
    files: int = 32


def main(arguments: str) -> None:
    """Run the job on standard input. `arguments` is JSON:

    - "limits", as in `SandboxLimits`, but with the "seconds" of the whole run;
    - "paths", the directories that Python needs;
    - "start", the seconds until the sandbox must stand;
    - "programs", whether the job is a program with cases rather than functions with tests.

    Standard output gets one line when the sandbox stands and one with the verdict. Where it can't stand the
    process ends with status 3 and says why on standard error.
    """
    options = json.loads(arguments)
    limits = SandboxLimits(**options["limits"])
    try:
        _separate()
        standing, stands = os.pipe()
        child = os.fork()
        if not child:
            _inside(limits, options["paths"], stands, programs=options["programs"])
        os.close(stands)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(3)
    ended = os.pidfd_open(child)
    if not (_happens(standing, options["start"]) and _happens(ended, limits.seconds)):
        os.kill(child, signal.SIGKILL)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0x7F)


def _happens(descriptor: int, seconds: float) -> bool:
    """Wait until something can be read or the other end is closed; return whether it was within the time."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _inside(limits: SandboxLimits, paths: list[str], stands: int, *, programs: bool) -> None:
    """Be the second process, the first of its namespace: when it ends, all of them end."""
    try:
        os.umask(0o022)  # of the new root's directories: nobody has to get through them
        _close_in(paths)
        ours, theirs = socket.socketpair()
        _call("unshare", NEWPID)
        if not os.fork():
            ours.close()
            _run_code(theirs, limits, programs=programs)
        theirs.close()
        # Comparing the outputs of many cases takes time that is no case's own.
        _give_up(replace(limits, cpu=math.ceil(limits.seconds)) if programs else limits)
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(3)
    verdict = os.fdopen(os.dup(1), "w")
    verdict.write('{"stands": true}\n')
    verdict.flush()
    os.close(stands)
    job = json.load(sys.stdin)
    _to_nowhere(0, 1, 2)
    if programs:
        passed, why = examine_program(ours, job["code"], job["cases"])
    else:
        passed, why = examine(Channel(ours), job["code"], job["tests"])
    verdict.write(json.dumps({"passed": passed, "why": why}) + "\n")
    verdict.flush()
    os._exit(0)


def _run_code(end: socket.socket, limits: SandboxLimits, *, programs: bool) -> None:
    """Be the third process. It starts before the job is read, so it holds nothing of the tests."""
    try:
        _to_nowhere(0, 1, 2)
        os.dup2(end.fileno(), 3)
        os.closerange(4, 4096)
        end.detach()
        end = socket.socket(fileno=3)
        if programs:
            # The children give up the rights to start processes by themselves. None may look into this one.
            _become_nobody_as_root()
            _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
            serve_programs(end, lambda cpu: _give_up(replace(limits, cpu=cpu)))
        else:
            _give_up(limits)
            serve(Channel(end))
    finally:
        os._exit(1)


def _separate() -> None:
    """Enter new namespaces; without the right to make them, within a new user namespace that has it."""
    try:
        _call("unshare", _SPACES)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        _call("unshare", _SPACES | NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def _close_in(paths: list[str]) -> None:
    """Enter a new root, in memory and read-only, that holds Python and two devices and nothing else."""
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    # Opened before the new root is laid over a directory that may hold one of them.
    sources = [(path, os.open(path, os.O_PATH)) for path in (*paths, *DEVICES)]
    root = "/tmp"
    _call("mount", b"none", root.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    for path, source in sources:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if path in DEVICES:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        else:
            os.makedirs(target, exist_ok=True)
        _call("mount", f"/proc/self/fd/{source}".encode(), target.encode(), None, _MS_BIND | _MS_REC, None)
        os.close(source)
        nodev = 0 if path in DEVICES else _ATTR_NODEV
        _restrict(target, _ATTR_RDONLY | _ATTR_NOSUID | nodev)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _restrict("/", _ATTR_RDONLY | _ATTR_NOSUID)


def _restrict(path: str, attributes: int) -> None:
    """Set attributes on a mount and all below it."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, wanted, size)


def _give_up(limits: SandboxLimits) -> None:
    """Drop the user, all capabilities and new privileges, and set the limits."""
    _become_nobody_as_root()
    # A user namespace of its own, so that the processes of other sandboxes don't count with this one's.
    _call("unshare", NEWUSER)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        if _libc().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # past the last one that this kernel has
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _call("capset", header, nothing)
    for kind, limit in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _become_nobody_as_root() -> None:
    """Stop being the machine's root. In a user namespace there is no other user, and no need of one."""
    if os.getresuid() != (0, 0, 0):
        return
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return


def _to_nowhere(*descriptors: int) -> None:
    """Connect descriptors to /dev/null."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of libc that returns 0 on success. Raises OSError with the function's name."""
    values = [
        ctypes.c_ulong(value) if isinstance(value, int) and value >= 0 else value for value in arguments
    ]
    if getattr(_libc(), name)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
