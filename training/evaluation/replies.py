"""The file of replies: JSON lines, appended as they come, so that a run can go on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

__all__ = ["EvaluatedReply", "ReplyLog", "ReplyLogError", "open_reply_log"]


_HEAD = b'{"about": '


class ReplyLogError(Exception):
    """The file can't be gone on with; the message says why."""


@dataclass(frozen=True, slots=True)
class EvaluatedReply:
    """One question answered at one setting.

    `strict` and `lenient` say whether it was right (None: could not be decided); `tokens`
    counts everything generated for it, aborted samples included, `reasoning` the part spent
    thinking, `samples` how many were launched; `seconds` is as the client saw it.
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
    """The replies so far, and the file that more are appended to."""

    def __init__(
        self, about: Mapping[str, Any], known: dict[tuple[str, str], EvaluatedReply], file: IO[bytes]
    ) -> None:
        self.about = about
        self._known = known
        self._file = file
        self._begun = file.tell() > 0

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether (setting, id) has been answered."""
        return key in self._known

    def __iter__(self) -> Iterator[EvaluatedReply]:
        return iter(self._known.values())

    def begin(self, model: str) -> None:
        """Settles which model is asked, and writes what the file is about if it is new."""
        if self._begun:
            return
        self.about = {**self.about, "model": model}
        self._file.write(_line({"about": self.about}))
        self._begun = True

    def add(self, reply: EvaluatedReply) -> None:
        """Appends a reply, and has it on its way to the disk before the next one is asked for."""
        self._known[reply.setting, reply.id] = reply
        self._file.write(_line(asdict(reply)))
        self._file.flush()


@contextmanager
def open_reply_log(path: Path, about: Mapping[str, Any]) -> Iterator[ReplyLog]:
    """The file's replies, if it belongs to the same evaluation; a new file, if there is none.

    `about` is all that bears on a reply beside its setting, the "model" included; a value of
    None isn't known yet and is taken from the file. A line that was cut off in the middle of being
    written is dropped. Raises ReplyLogError and OSError.
    """
    held = path.read_bytes() if path.exists() else b""
    if held[: len(_HEAD)] != _HEAD[: len(held)]:
        raise ReplyLogError(f"{path} is no file of an evaluation; choose another with --out")
    whole = held[: held.rfind(b"\n") + 1]
    lines = whole.splitlines()
    known: dict[tuple[str, str], EvaluatedReply] = {}
    if lines:
        about = _same(path, about, _object(path, 1, lines[0]).get("about"))
        for number, line in enumerate(lines[1:], 2):
            reply = _reply(path, number, line)
            known.setdefault((reply.setting, reply.id), reply)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(len(whole))
        file.seek(len(whole))
        yield ReplyLog(about, known, file)


def _same(path: Path, ours: Mapping[str, Any], theirs: object) -> Mapping[str, Any]:
    if not isinstance(theirs, dict):
        raise ReplyLogError(f"{path}, line 1: says nothing of an evaluation")
    differing = [
        f"{name}: {theirs.get(name)!r}, not {value!r}"
        for name, value in ours.items()
        if value is not None and theirs.get(name) != value
    ]
    if differing or theirs.keys() != ours.keys():
        told = "; ".join(differing) or "written by another version"
        raise ReplyLogError(f"{path} holds another evaluation ({told}); choose another file with --out")
    return theirs


def _reply(path: Path, number: int, line: bytes) -> EvaluatedReply:
    held = _object(path, number, line)
    names = {field.name for field in fields(EvaluatedReply)}
    if held.keys() != names:
        raise ReplyLogError(f"{path}, line {number}: no reply of an evaluation")
    return EvaluatedReply(**held)


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        held = json.loads(line)
    except ValueError as error:
        raise ReplyLogError(f"{path}, line {number}: not valid JSON") from error
    if not isinstance(held, dict):
        raise ReplyLogError(f"{path}, line {number}: not a JSON object")
    return held


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
