"""Writes what the gateway answers as recordings, in the form that `thinkgate replay` reads.

Off unless a path is set. One line is one request: the question, every finished sample with the
answer the grader reads in it, the vote's winner, what was asked and what it cost. Lines
are made and written by a thread of its own; a full queue drops lines, counts them, and never waits.
Feedback on a recorded answer is a line of its own, `{"feedback": {"id", ...}}`, after the answer's.
"""

from __future__ import annotations

import gzip
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from gateway.config import Redactable
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest
from scorers.answers import extract
from scorers.types import Sample

__all__ = ["Ids", "Recorder", "RecorderFailed", "recorded", "remarked"]

_log = logging.getLogger(__name__)
_QUEUE = 1000  # requests waiting to be written
_BATCH = 200
_REMEMBERED = 50_000  # answers whose ids are known, for feedback: some 10 MB


class RecorderFailed(Exception):
    """The file can't be written; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Ids:
    """By what names an answer may be spoken of, its own id and the request's, and by whom.

    `owner` is the digest of the key that asked; it is never written down.
    """

    completion: str = ""
    request: str = ""
    owner: str = ""


_NAMELESS = Ids()


@dataclass(frozen=True, slots=True)
class _Entry:
    when: float
    request: RunRequest
    result: RunResult
    ids: Ids


@dataclass(frozen=True, slots=True)
class _Remark:
    when: float
    id: str
    words: Mapping[str, Any]


class Recorder:
    """Appends recordings to a file, gzipped where its name ends in .gz. Explicit life: start, record, close.

    The file is opened anew for every batch, so it may be moved away at any time (as logrotate
    does) and several processes may share it; nobody but its owner can read it. `redact`
    names what is left out.
    """

    def __init__(
        self,
        path: Path,
        redact: Collection[Redactable] = (),
        waiting: int = _QUEUE,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._path = path
        self._redact = frozenset(redact)
        self._queue: queue.Queue[_Entry | _Remark | None] = queue.Queue(waiting)
        self._known: dict[tuple[str, str], str] = {}  # owner and any id -> the completion's
        self._order: deque[Ids] = deque()
        self._remembered = remembered
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._missed = 0  # counted by the event loop
        self._unwritten = 0  # counted by the thread

    @property
    def dropped(self) -> int:
        """Requests that were not recorded, because the queue was full or the file could not be written."""
        return self._missed + self._unwritten

    def start(self) -> None:
        """Begins to write; does nothing if it has. Raises RecorderFailed where the file can't be opened."""
        if self._thread.is_alive():
            return
        try:
            self._append(b"")
        except OSError as error:
            raise RecorderFailed(f"record_to: {self._path} can't be written ({error.strerror}).") from error
        self._thread.start()

    def record(self, request: RunRequest, result: RunResult, ids: Ids = _NAMELESS) -> None:
        """Takes note of a request that has come to its end; never waits."""
        try:
            self._queue.put_nowait(_Entry(time.time(), request, result, ids))
        except queue.Full:
            self._missed += 1
            return
        if ids.completion:
            self._remember(ids)

    def find(self, any_id: str, owner: str = "") -> str | None:
        """The completion's id of the owner's answer, if it is among the last 50,000 recorded; else None."""
        return self._known.get((owner, any_id))

    def remark(self, completion: str, words: Mapping[str, Any]) -> bool:
        """Takes note of what was said of a recorded answer; False where the queue is full."""
        try:
            self._queue.put_nowait(_Remark(time.time(), completion, words))
        except queue.Full:
            return False
        return True

    def _remember(self, ids: Ids) -> None:
        self._order.append(ids)
        self._known[ids.owner, ids.completion] = ids.completion
        if ids.request:
            self._known[ids.owner, ids.request] = ids.completion
        while len(self._order) > self._remembered:
            old = self._order.popleft()
            for name in ((old.owner, old.completion), (old.owner, old.request)):
                if self._known.get(name) == old.completion:
                    del self._known[name]

    def close(self) -> None:
        """Writes what is left and ends; blocks meanwhile. Without a start there is nothing to end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and batch[-1] is not None and not self._queue.empty():
                batch.append(self._queue.get())
            open_ = batch[-1] is not None
            self._write([entry for entry in batch if entry is not None])

    def _write(self, entries: Sequence[_Entry | _Remark]) -> None:
        lines = [line for entry in entries if (line := self._line(entry)) is not None]
        try:
            if lines:
                self._append(b"".join(lines))
        except OSError as error:
            self._unwritten += len(lines)
            _log.warning("%d requests were not recorded: %s", len(lines), error)

    def _line(self, entry: _Entry | _Remark) -> bytes | None:
        if isinstance(entry, _Remark):
            line = remarked(entry.id, entry.words, entry.when, self._redact)
        else:
            line = recorded(entry.request, entry.result, entry.when, self._redact, entry.ids)
        try:
            return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError as error:  # half a character, as a cut reply may end in
            self._unwritten += 1
            _log.warning("a request was not recorded: %s", error)
            return None

    def _append(self, block: bytes) -> None:
        # Each batch is a whole gzip member, so a process that is killed spoils no other batch.
        if block and self._path.suffix == ".gz":
            block = gzip.compress(block)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "ab", buffering=0) as file:
            file.write(block)


def remarked(
    completion: str, words: Mapping[str, Any], when: float, redact: Collection[str] = ()
) -> dict[str, Any]:
    """The line of one feedback; a comment is the user's words, as the question is."""
    said = {word: value for word, value in words.items() if word != "comment" or "question" not in redact}
    return {"feedback": {"id": completion, **said}, "time": _stamp(when)}


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def recorded(
    request: RunRequest, result: RunResult, when: float, redact: Collection[str] = (), ids: Ids = _NAMELESS
) -> dict[str, Any]:
    """The line of one request; `when` in seconds since 1970, `winner` the place of a sample in the list."""
    samples = sorted(result.drawn, key=lambda sample: sample.index)
    verdict, sampling = result.verdict, request.sampling
    winner = None if verdict is None else verdict.winner
    named = {"id": ids.completion, "request_id": ids.request} if ids.completion else {}
    line = {
        **named,
        "time": _stamp(when),
        "model": request.model.name,
        "question": _question(request.body),
        "samples": [_sample(sample, result.scores.get(sample.index), redact) for sample in samples],
        "winner": next((i for i, sample in enumerate(samples) if sample.index == winner), None),
        "budget": {
            "asked": request.asked,
            "effort": sampling.level,
            "thinking_tokens": sampling.thinking_limit,
            "samples": sampling.samples,
            "vote": sampling.vote,
            "scorer": sampling.scorer,
            "stop": sampling.stop,
        },
        "tokens": result.generated,
        "reasoning_tokens": result.reasoning,
        "seconds": round(result.seconds, 3),
        "aborted": result.counts.aborted,
        "failed": result.counts.failed,
    }
    if "question" in redact:
        del line["question"]
    return line


def _sample(sample: Sample, score: float | None, redact: Collection[str]) -> dict[str, Any]:
    """The sample as replay reads it; a truncated one has no answer that counts."""
    answer = None if sample.truncated else extract(sample.content)
    scored = {} if score is None else {"score": score}
    told: dict[str, Any] = {
        "text": sample.content,
        "reasoning": sample.reasoning,
        "answer": answer.raw if answer else None,
        "tokens": sample.usage.completion,
        "finish_reason": sample.finish_reason,
        **scored,
    }
    return {key: value for key, value in told.items() if key not in redact}


def _question(body: Mapping[str, Any]) -> str:
    """The text of the user's last message."""
    content = next((m.get("content") for m in reversed(body["messages"]) if m["role"] == "user"), None)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in parts if isinstance(text, str))
    return content or ""
