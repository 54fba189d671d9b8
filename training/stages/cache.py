"""Results that a stage collects before it trains, saved beside it so that a resumed stage reuses them.

A teacher's replies cost money or hours, and replies sampled anew might differ. Each file holds a digest of
the settings, data and model that it came from. A file with another digest counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scorers.gate import model_digest
from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup

__all__ = ["TeacherReplyLog", "digest", "load_or_compute", "weights_digest"]


def digest(**parts: object) -> str:
    """Return a digest of everything that decides a result. The names of the parts belong to it."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def weights_digest(model: Path | None) -> str:
    """Return the digest of a directory's weights, "" for no directory."""
    return "" if model is None else model_digest(model)


def load_or_compute(
    path: Path,
    expected_digest: str,
    compute: Callable[[], object],
    clock: Callable[[], float],
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Any, float]:
    """Return the file's result, as JSON, and the seconds that computing it took; compute it if it is missing.

    Of several processes rank 0 reads and writes. All compute together, and all get what rank 0 has.
    """
    saved = group.gather([_read(path)] if group.rank == 0 else [])[0]
    if saved.get("bound") == expected_digest:
        return saved["value"], saved["seconds"]
    start = clock()
    result = json.loads(json.dumps(compute()))
    value, seconds = group.gather([(result, clock() - start)])[0]
    if group.rank == 0:
        contents = {"bound": expected_digest, "seconds": seconds, "value": value}
        _replace(path, json.dumps(contents) + "\n")
    return value, seconds


class TeacherReplyLog:
    """A file of replies, one a line as they arrive, so that an answered question is not asked again.

    `replies` are those of earlier runs by their keys, if the file has the same digest. A line that was cut
    off is dropped.
    """

    def __init__(self, path: Path, expected_digest: str) -> None:
        self._path = path
        self.replies: dict[str, Any] = {}
        header = {"bound": expected_digest}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        if lines and lines[0] == json.dumps(header):
            for line in lines[1:-1]:  # text behind the last line's end was cut off
                self.replies.update(json.loads(line))
        entries = [header, *({key: value} for key, value in self.replies.items())]
        _replace(path, "".join(json.dumps(entry) + "\n" for entry in entries))

    def add(self, key: str, value: object) -> None:
        """Append one reply."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: value}) + "\n")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return contents if isinstance(contents, dict) else {}


def _replace(path: Path, text: str) -> None:
    """Write a whole file in one step."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
