"""What a stage gathered before it trains, kept beside it: a resumed stage goes on with the very same.

Replies of a teacher cost money or hours, and replies drawn anew might not be the same. Each file says
what it is bound to, a digest of the settings, data and model that it came from; of others it is as if
there were none.
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

__all__ = ["ReplyLog", "cached", "digest", "weights_digest"]


def digest(**told: Any) -> str:
    """A digest of all that bears on what is gathered, as JSON can say it."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def weights_digest(model: Path | None) -> str:
    """What tells a directory's weights from others: their digest; "" for none."""
    return "" if model is None else model_digest(model)


def cached(
    path: Path,
    bound: str,
    make: Callable[[], Any],
    clock: Callable[[], float],
    ranks: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Any, float]:
    """What `make` gave, as JSON, and the time that it took: made the first time, read every other time.

    Of several processes the first one reads and writes; all make it together, and all get what that one has.
    """
    found = ranks.gather([_read(path)] if ranks.index == 0 else [])[0]
    if found.get("bound") == bound:
        return found["value"], found["seconds"]
    began = clock()
    made = json.loads(json.dumps(make()))
    value, seconds = ranks.gather([(made, clock() - began)])[0]
    if ranks.index == 0:
        _replace(path, json.dumps({"bound": bound, "seconds": seconds, "value": value}) + "\n")
    return value, seconds


class ReplyLog:
    """Answers as they come in, a line each, so that what was answered is not asked again.

    `known` are those of before by their keys, where the file is bound to the same; a line that was
    cut off is dropped.
    """

    def __init__(self, path: Path, bound: str) -> None:
        self._path = path
        self.known: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        if lines and lines[0] == json.dumps({"bound": bound}):
            for line in lines[1:-1]:  # what stands behind the last line's end was cut off
                self.known.update(json.loads(line))
        kept = [{"bound": bound}, *({key: value} for key, value in self.known.items())]
        _replace(path, "".join(json.dumps(each) + "\n" for each in kept))

    def add(self, key: str, value: Any) -> None:
        """Takes down one answer."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: value}) + "\n")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, text: str) -> None:
    """Puts a whole file in place at once."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
