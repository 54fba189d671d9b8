"""Worker processes that ask math-verify: the caller's side. `scorers.grader.worker` is the other side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import signal
import subprocess
import threading
from collections import deque
from concurrent.futures import Future
from types import TracebackType
from typing import IO, Self

from scorers.grader.safe_python import python_command, python_environment

__all__ = ["MAX_ANSWER_LENGTH", "LazyWorkerPool", "PoolError", "WorkerPool"]

MAX_ANSWER_LENGTH = (
    2_000  # characters of one answer; what is longer is not mathematics that sympy could help with
)
_END_SECONDS = 5.0  # a process that closed its output has so long to end before it is killed
_LONGEST_LINE = 300  # characters of a process's last line that an error repeats

_log = logging.getLogger(__name__)


class PoolError(RuntimeError):
    """The worker processes can't start."""


class WorkerPool:
    """Asks killable worker processes whether two answers are equal. Its life is explicit: start, ask, close.

    `workers` comparisons run at once, each for at most `seconds` of wall time and `memory` bytes. A
    comparison that takes more is killed alone and stays undecided. Time in the queue does not count,
    so a hostile comparison changes no other result. `start` returns when the workers are warm. The
    pool works with `with` and `async with`.
    """

    def __init__(self, workers: int = 2, seconds: float = 0.6, memory: int = 1 << 30) -> None:
        self._arguments = [str(workers), str(seconds), str(memory)]
        self._lock = threading.Lock()
        self._pending: dict[int, Future[bool | None]] = {}
        self._last_id = 0
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._open = False
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Return why the workers can't start, if nobody caught that error; else None."""
        return self._failure

    def start(self) -> Self:
        """Start the processes and wait until they are warm. Raises PoolError if they can't start."""
        self._process = self._spawn()
        self._open = True
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._write)]
        for thread in self._threads:
            thread.start()
        return self

    async def start_async(self) -> Self:
        """Do the same as `start` without blocking the event loop."""
        return await asyncio.to_thread(self.start)

    def close(self) -> None:
        """End the processes; open comparisons become undecided. Closing twice does no harm."""
        if not self._open:
            return
        self._open = False
        self._outbox.put(None)
        process = self._process
        if process is not None:
            process.kill()
        for thread in self._threads:
            thread.join()

    async def close_async(self) -> None:
        """Do the same as `close` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def ask(self, a: str, b: str) -> bool | None:
        """Return whether two answers are equal; None if undecided. It blocks, so not for an event loop."""
        return self._submit(a, b).result()

    async def ask_async(self, a: str, b: str) -> bool | None:
        """Do the same as `ask` without blocking the event loop."""
        return await asyncio.wrap_future(self._submit(a, b))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await self.start_async()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    def _submit(self, a: str, b: str) -> Future[bool | None]:
        future: Future[bool | None] = Future()
        future.set_running_or_notify_cancel()  # after a cancelled call the comparison finishes all the same
        with self._lock:
            if not self._open or max(len(a), len(b)) > MAX_ANSWER_LENGTH:
                future.set_result(None)
                return future
            self._last_id += 1
            self._pending[self._last_id] = future
            self._outbox.put(json.dumps({"id": self._last_id, "a": a, "b": b}).encode() + b"\n")
        return future

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = python_command("scorers.grader.worker", *self._arguments)
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=python_environment()
            )
        except OSError as error:
            raise PoolError(f"the math workers can't start: {error}") from error
        last_line: deque[bytes] = deque(maxlen=1)
        listener = threading.Thread(
            target=_keep_last_line, args=(_pipe(process.stderr), last_line), daemon=True
        )
        listener.start()
        if b"ready" not in _pipe(process.stdout).readline():
            end = _wait_for_end(process)
            listener.join(_END_SECONDS)
            raise PoolError(f"the math workers can't start: the process {end}{_in_parentheses(last_line)}")
        return process

    def _read(self) -> None:
        """Hand out results. If the fork server died, its comparisons are undecided and a new one starts."""
        while self._process is not None:
            for line in _pipe(self._process.stdout):
                message = json.loads(line)
                with self._lock:
                    future = self._pending.pop(message["id"], None)
                if future is not None:
                    future.set_result(message["equal"])
            with self._lock:
                lost, self._pending = self._pending, {}
                for future in lost.values():
                    future.set_result(None)
                _reap(self._process)
                self._process = None
            if self._open:
                self._restart()

    def _restart(self) -> None:
        try:
            process = self._spawn()
        except PoolError as error:
            if self._open:
                self._report(error)
            self._open = False
            self._outbox.put(None)
            return
        with self._lock:
            self._process = process
        if not self._open:
            process.kill()

    def _report(self, error: Exception) -> None:
        """Log and store why there are no workers, for a caller that can't catch the error."""
        self._failure = str(error)
        _log.warning("Answers that need computer algebra stay undecided: %s", error)

    def _write(self) -> None:
        while (line := self._outbox.get()) is not None:
            with self._lock:
                process = self._process
            if process is None:
                self._resolve_as_undecided(line)
                continue
            try:
                stdin = _pipe(process.stdin)
                stdin.write(line)
                stdin.flush()
            except (OSError, ValueError):
                self._resolve_as_undecided(line)

    def _resolve_as_undecided(self, line: bytes) -> None:
        with self._lock:
            future = self._pending.pop(json.loads(line)["id"], None)
        if future is not None:
            future.set_result(None)


class LazyWorkerPool(WorkerPool):
    """A pool that starts with its first comparison, because most answers need none.

    It is for callers that may wait. Close it like any other pool; after that every comparison stays
    undecided.
    """

    def __init__(self, workers: int = 1, seconds: float = 0.6) -> None:
        super().__init__(workers, seconds)
        self._starting = threading.Lock()
        self._started = False

    def ask(self, a: str, b: str) -> bool | None:
        """See `WorkerPool.ask`. Raises PoolError if the workers can't start."""
        with self._starting:
            if not self._started:
                self.start()
                self._started = True
        return super().ask(a, b)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        self._started = True
        super().close()

    def __enter__(self) -> Self:
        return self


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the process was started with pipes"
    return stream


def _keep_last_line(stderr: IO[bytes], last_line: deque[bytes]) -> None:
    """Read a stream to its end and keep its last line that is not blank."""
    with stderr:
        last_line.extend(filter(None, map(bytes.strip, stderr)))


def _wait_for_end(process: subprocess.Popen[bytes]) -> str:
    """Wait until a process that does not serve has ended; return how it ended."""
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        _reap(process)
        return "wrote something other than that it is ready"
    _reap(process)
    return f"ended with signal {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _in_parentheses(last_line: deque[bytes]) -> str:
    """Return the last line of standard error in parentheses, if there is one."""
    return f" ({last_line[0].decode(errors='replace')[:_LONGEST_LINE]})" if last_line else ""


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # unsent bytes to a process that has ended
            _pipe(stream).close()
