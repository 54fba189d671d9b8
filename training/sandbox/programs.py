"""Cases of a whole program: each starts it anew with its own standard input, and compares what it prints.

Two processes share the work, as in `training.sandbox.remote`. `examine_program` knows the expected outputs,
`serve_programs` starts the untrusted code and never sees them. A program gets two pipes of the examiner's
and nothing else, so it can't reach the exit status, which its parent reports. Each start is a fork of a
process that has only read the code, so a program finds nothing of the cases before.

The first case that fails ends the run. A program passes where it ends within its time with exit status 0 and
prints the expected output (see `same_output`). What it writes to standard error is dropped.

Standard library alone: this runs inside the sandbox.
"""

from __future__ import annotations

import atexit
import builtins
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, Never

from training.sandbox.remote import BrokenCode, Channel

__all__ = ["examine_program", "same_output", "serve_programs"]

_SPARE_OUTPUT = 1 << 16  # bytes that a program may print beyond twice the expected output
_CHUNK = 1 << 16
_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_LONGEST_DECIMAL = 400  # characters of a token; longer ones are compared as text


def same_output(printed: str, expected: str) -> bool:
    """Whether a judge takes the printed output for the expected one.

    Outputs are compared line by line, and lines token by token. So spaces within and around lines don't
    count, nor do empty lines at the beginning and the end; empty lines between others do. Tokens are equal as
    text, or as decimal numbers where one is written with a point or an exponent (1.50 is 1.5, but 010 is
    not 10). There is no tolerance, and no other order of lines is accepted.
    """
    ours, theirs = ([line.split() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    return len(ours) == len(theirs) and all(map(_same_token, ours, theirs))


def _same_token(one: str, other: str) -> bool:
    if one == other:
        return True
    if max(len(one), len(other)) > _LONGEST_DECIMAL or not set(one + other) & set(".eE"):
        return False
    numbers = _DECIMAL.fullmatch(one) and _DECIMAL.fullmatch(other)
    return bool(numbers) and Decimal(one) == Decimal(other)


# The side of the code.


def serve_programs(end: socket.socket, confine: Callable[[int], None]) -> None:
    """Receive the code, then start it for each pair of pipes that comes and send its exit status.

    `confine` makes the new process give up its rights; its argument is the seconds of processor time. The
    caller must be the first process of its namespace. Returns when the other side has gone.
    """
    channel = Channel(end)
    code = channel.receive()
    channel.send("ready")  # only now may pipes come: the channel's buffer would lose them
    while True:
        message, pipes, *_ = socket.recv_fds(end, 64, 2)
        if not message:
            return
        child = os.fork()
        if not child:
            _run(code, pipes, confine, int(message))
        for pipe in pipes:
            os.close(pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _end_all()
        channel.send(status)


def _end_all() -> None:
    """Kill and reap every other process of the namespace, should the program have left any."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ChildProcessError, ProcessLookupError):
        return


def _run(code: str, pipes: Sequence[int], confine: Callable[[int], None], cpu: int) -> Never:
    """Run the code as Python runs a script, and end the process with its exit status."""
    status, leave = 1, os._exit  # the code may replace the function
    try:
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        os.closerange(3, 4096)
        confine(cpu)
        sys.argv = ["solution.py"]
        stdin = os.fdopen(0, encoding="utf-8", errors="replace")
        stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace")
        vars(sys).update(stdin=stdin, __stdin__=stdin, stdout=stdout, __stdout__=stdout)
        vars(builtins).update(exit=sys.exit, quit=sys.exit)  # elsewhere the module `site` defines them
        main = sys.modules["__main__"] = ModuleType("__main__")
        try:
            exec(compile(code, "solution.py", "exec"), main.__dict__)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        try:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.__stdout__):
                if stream is not None and not getattr(stream, "closed", False):
                    stream.flush()
        except BaseException:  # noqa: BLE001  # a stream may be an object of the program's
            status = status or 1
    finally:
        leave(status & 0xFF)


# The side of the cases.


def examine_program(end: socket.socket, code: str, cases: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Run the code on every case: (whether all passed, else why not).

    A case has its "input" and "output", and its limits: "seconds" of wall time and "cpu" seconds.
    """
    channel = Channel(end)
    try:
        channel.send(code)
        channel.receive()
        for number, case in enumerate(cases, 1):
            if failure := _failure(end, channel, case):
                return False, f"case {number}: {failure}"
    except (BrokenCode, OSError):
        return False, "the code is too long, or its process has ended"
    return True, ""


def _failure(end: socket.socket, channel: Channel, case: Mapping[str, Any]) -> str:
    """Run one case: return why it failed, or nothing."""
    their_input, our_input = os.pipe()
    our_output, their_output = os.pipe()
    socket.send_fds(end, [str(case["cpu"]).encode()], [their_input, their_output])
    os.close(their_input)
    os.close(their_output)
    expected = str(case["output"])
    run = _Running(our_input, our_output, case["input"].encode(errors="replace"))
    try:
        room = 2 * len(expected.encode(errors="replace")) + _SPARE_OUTPUT
        status = run.finish(end.fileno(), channel.receive, case["seconds"], room)
    except _Stopped as stopped:
        return str(stopped)
    finally:
        run.close()
    if status:
        return f"exit status {status}" if status > 0 else f"ended by signal {-status}"
    printed = run.output.decode(errors="replace")
    if same_output(printed, expected):
        return ""
    return "wrong output" if printed.strip() else "no output"


class _Stopped(Exception):
    """The program took too long, or printed too much."""


class _Running:
    """The pipes of one program: feeds its input and collects its output at the same time."""

    def __init__(self, our_input: int, our_output: int, data: bytes) -> None:
        self.output = bytearray()
        self._pipes = {our_input, our_output}
        self._input, self._rest = our_input, memoryview(data)
        self._output = our_output
        self._poll = select.poll()
        os.set_blocking(our_input, False)

    def finish(self, status_end: int, receive: Callable[[], Any], seconds: float, room: int) -> int:
        """Return the exit status, which `receive` gives when `status_end` can be read. Raises _Stopped."""
        self._poll.register(self._input, select.POLLOUT)
        self._poll.register(self._output, select.POLLIN)
        self._poll.register(status_end, select.POLLIN)
        self._feed()
        deadline, status = time.monotonic() + seconds, None
        while status is None or self._output in self._pipes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Stopped("the time is over")
            for descriptor, _ in self._poll.poll(1000 * left):
                if descriptor == self._input:
                    self._feed()
                elif descriptor == self._output:
                    self._collect(room)
                else:
                    status = receive()
                    self._poll.unregister(status_end)
        return int(status)

    def close(self) -> None:
        """Close the pipes that are still open."""
        for pipe in tuple(self._pipes):
            self._shut(pipe)

    def _feed(self) -> None:
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._input, self._rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # a program need not read all its input
            self._rest = self._rest[:0]
        if not self._rest:
            self._shut(self._input)

    def _collect(self, room: int) -> None:
        if not (data := os.read(self._output, _CHUNK)):
            self._shut(self._output)
        self.output += data
        if len(self.output) > room:
            raise _Stopped("it prints too much")

    def _shut(self, pipe: int) -> None:
        self._poll.unregister(pipe)
        self._pipes.remove(pipe)
        os.close(pipe)
