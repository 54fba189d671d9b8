"""The reply log: JSON lines, appended as replies arrive, so that an interrupted evaluation can resume."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

__all__ = ["EvaluatedReply", "ReplyLog", "ReplyLogError", "open_reply_log"]

_FIRST_BYTES = b'{"about": '


class ReplyLogError(Exception):
    """The file can't be resumed; the message says why."""


@dataclass(frozen=True, slots=True)
class EvaluatedReply:
    """One problem answered at one setting.

    `strict` and `lenient` say whether the reply is correct, None where the grader could not decide.
    `tokens` counts everything generated, aborted samples included; `reasoning` is the part spent thinking.
    `samples` counts the samples launched. The client measures `seconds`.
    """

    setting: str
    id: str
    strict: bool | None
    lenient: bool | None
    tokens: int
    reasoning: int
    samples: int
    seconds: float
    finish: str
    text: str


class ReplyLog:
    """The replies of one evaluation so far, and the file that grows with them.

    `about` is the file's first line: everything that identifies the evaluation.
    """

    def __init__(
        self, about: Mapping[str, Any], replies: dict[tuple[str, str], EvaluatedReply], file: IO[bytes]
    ) -> None:
        self.about = about
        self._replies = replies
        self._file = file
        self._has_header = file.tell() > 0

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the log has a reply for this (setting, problem id)."""
        return key in self._replies

    def __iter__(self) -> Iterator[EvaluatedReply]:
        return iter(self._replies.values())

    def begin(self, model: str) -> None:
        """Record the evaluated model, and write the first line if the file is new."""
        if self._has_header:
            return
        self.about = {**self.about, "model": model}
        self._file.write(_encode({"about": self.about}))
        self._has_header = True

    def add(self, reply: EvaluatedReply) -> None:
        """Append a reply and flush it before the next request starts."""
        self._replies[reply.setting, reply.id] = reply
        self._file.write(_encode(asdict(reply)))
        self._file.flush()


@contextmanager
def open_reply_log(path: Path, about: Mapping[str, Any]) -> Iterator[ReplyLog]:
    """Open the log of this evaluation, or create it.

    `about` holds everything that affects a reply except its setting, the "model" included. A value of None
    is unknown and is taken from the file. The last line is dropped if it is incomplete. Raises OSError, and
    ReplyLogError where the file belongs to another evaluation.
    """
    content = path.read_bytes() if path.exists() else b""
    if content[: len(_FIRST_BYTES)] != _FIRST_BYTES[: len(content)]:
        raise ReplyLogError(f"{path} is not a file of an evaluation; choose another with --out")
    complete = content[: content.rfind(b"\n") + 1]
    lines = complete.splitlines()
    replies: dict[tuple[str, str], EvaluatedReply] = {}
    if lines:
        about = _check_about(path, about, _decode(path, 1, lines[0]).get("about"))
        for number, line in enumerate(lines[1:], 2):
            reply = _decode_reply(path, number, line)
            replies.setdefault((reply.setting, reply.id), reply)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(len(complete))
        file.seek(len(complete))
        yield ReplyLog(about, replies, file)


def _check_about(path: Path, expected: Mapping[str, Any], recorded: object) -> Mapping[str, Any]:
    """Return what the file records about its evaluation. Raises ReplyLogError where it is another one."""
    if not isinstance(recorded, dict):
        raise ReplyLogError(f"{path}, line 1: does not describe an evaluation")
    differences = [
        f"{name}: {recorded.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if value is not None and recorded.get(name) != value
    ]
    if differences or recorded.keys() != expected.keys():
        reason = "; ".join(differences) or "written by another version"
        raise ReplyLogError(f"{path} holds another evaluation ({reason}); choose another file with --out")
    return recorded


def _decode_reply(path: Path, number: int, line: bytes) -> EvaluatedReply:
    values = _decode(path, number, line)
    if values.keys() != {field.name for field in fields(EvaluatedReply)}:
        raise ReplyLogError(f"{path}, line {number}: not a reply of an evaluation")
    return EvaluatedReply(**values)


def _decode(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ReplyLogError(f"{path}, line {number}: not valid JSON") from error
    if not isinstance(value, dict):
        raise ReplyLogError(f"{path}, line {number}: not a JSON object")
    return value


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
