"""Records answered requests in the background, in the form that `thinkgate replay` reads.

Off unless a path is set. One line is one request, see `policies.recordings`. A thread makes and writes the
lines; where its queue is full, requests are dropped and counted, and nothing ever waits. Feedback on a
recorded answer is a line of its own, after the answer's.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Redactable
from gateway.recordings.conversation import InlineImage
from gateway.recordings.feedback import RecentAnswers
from gateway.recordings.files import ImageFolder, LinesLost, append_lines, check_writable
from gateway.recordings.lines import UNKNOWN, Provenance, recorded_feedback, recorded_request
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest
from policies.recordings import Feedback

__all__ = ["Recorder", "RecorderFailed"]

_log = logging.getLogger(__name__)
_QUEUE_SIZE = 1000  # requests waiting to be written
_BATCH_SIZE = 200
_REMEMBERED = 50_000


class RecorderFailed(Exception):
    """The file can't be written; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class _AnsweredRequest:
    when: float
    request: RunRequest
    result: RunResult
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class _GivenFeedback:
    when: float
    feedback: Feedback


class Recorder:
    """Appends recordings to a file, gzipped where its name ends in .gz. Call start, record and close.

    The file is opened anew for every batch, so it may be moved away at any time, as logrotate does. Several
    processes may share it, and nobody but its owner can read it. `redact` names what is left out.
    With `images` the images of the conversations are stored in a folder beside the file.
    """

    def __init__(
        self,
        path: Path,
        redact: Collection[Redactable] = (),
        images: bool = False,
        queue_size: int = _QUEUE_SIZE,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._path = path
        self._redact = frozenset(redact)
        self._images = ImageFolder(path) if images else None
        self._queue: queue.Queue[_AnsweredRequest | _GivenFeedback | None] = queue.Queue(queue_size)
        self._answers = RecentAnswers(remembered)
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._missed = 0  # counted by the event loop
        self._unwritten = 0  # counted by the thread

    @property
    def dropped(self) -> int:
        """Requests that were not recorded, because the queue was full or the file could not be written."""
        return self._missed + self._unwritten

    def start(self) -> None:
        """Begin to write; a second call does nothing. Raises RecorderFailed if the file can't be opened."""
        if self._thread.is_alive():
            return
        try:
            check_writable(self._path)
        except OSError as error:
            raise RecorderFailed(f"record_to: {self._path} can't be written ({error.strerror}).") from error
        self._thread.start()

    def record(self, request: RunRequest, result: RunResult, provenance: Provenance = UNKNOWN) -> None:
        """Record a request that has ended, without waiting."""
        try:
            self._queue.put_nowait(_AnsweredRequest(time.time(), request, result, provenance))
        except queue.Full:
            self._missed += 1
            return
        if provenance.completion_id:
            self._answers.add(provenance)

    def find(self, any_id: str, owner: str = "") -> str | None:
        """Return the completion's id of an answer of the owner's; None unless it was recorded lately."""
        return self._answers.find(any_id, owner)

    def add_feedback(self, feedback: Feedback) -> bool:
        """Record feedback on a recorded answer, without waiting; False where the queue is full."""
        try:
            self._queue.put_nowait(_GivenFeedback(time.time(), feedback))
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what is left and end; blocks meanwhile. Without a start there is nothing to end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        closed = False
        while not closed:
            batch = [self._queue.get()]
            while len(batch) < _BATCH_SIZE and batch[-1] is not None and not self._queue.empty():
                batch.append(self._queue.get())
            closed = batch[-1] is None
            self._write([entry for entry in batch if entry is not None])

    def _write(self, entries: Sequence[_AnsweredRequest | _GivenFeedback]) -> None:
        lines = [line for entry in entries if (line := self._line(entry)) is not None]
        if not lines:
            return
        try:
            append_lines(self._path, lines)
        except LinesLost as error:
            self._unwritten += error.count
            _log.warning("%d requests were not recorded: %s", error.count, error)

    def _line(self, entry: _AnsweredRequest | _GivenFeedback) -> bytes | None:
        try:
            if isinstance(entry, _GivenFeedback):
                return recorded_feedback(entry.feedback, entry.when, self._redact).json_line()
            line, images = recorded_request(
                entry.request, entry.result, entry.when, self._redact, entry.provenance
            )
            self._store(images)
            return line.json_line()
        except ValueError as error:  # half a character, as a reply that was cut off may end in
            self._unwritten += 1
            _log.warning("a request was not recorded: %s", error)
            return None

    def _store(self, images: Sequence[InlineImage]) -> None:
        if self._images is None:
            return
        for image in images:
            try:
                self._images.store(image)
            except OSError as error:
                _log.warning("an image was not recorded: %s", error)
