"""Appends whole lines to a recording, and stores images beside it. All file access of the writer is here."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.recordings.conversation import InlineImage

__all__ = ["ImageFolder", "LinesLost", "append_lines", "check_writable"]

Write = Callable[[int, memoryview], int]


class LinesLost(Exception):
    """Some lines could not be written; `count` says how many. The file holds whole lines only."""

    def __init__(self, count: int, error: OSError) -> None:
        super().__init__(str(error))
        self.count = count


def check_writable(path: Path) -> None:
    """Create the file if there is none. Raises OSError."""
    os.close(_open(path))


def append_lines(path: Path, lines: Sequence[bytes], write: Write = os.write) -> None:
    """Append the lines in one block: a gzip member where the file's name ends in .gz. Raises LinesLost.

    A write that stops short is finished. Where that fails, the file is cut back to its last whole line, or
    to its last whole member. `write` stands for `os.write`.
    """
    compressed = path.suffix == ".gz"
    try:
        with _open_locked(path) as descriptor:
            start = _size(descriptor)
            head = b"\n" if not compressed and _ends_in_torn_line(descriptor, start) else b""
            block = gzip.compress(b"".join(lines)) if compressed else head + b"".join(lines)
            written = 0
            try:
                while written < len(block):
                    written += _progress(write(descriptor, memoryview(block)[written:]))
            except OSError as error:
                whole = 0 if compressed else block.rfind(b"\n", 0, written) + 1
                if start is not None:
                    with suppress(OSError):  # the next append then begins a new line
                        os.ftruncate(descriptor, start + whole)
                kept = max(0, block.count(b"\n", 0, whole) - len(head))
                raise LinesLost(len(lines) - kept, error) from error
    except OSError as error:
        raise LinesLost(len(lines), error) from error


class ImageFolder:
    """Images under the SHA-256 of their bytes, each stored once, in a folder beside the recording."""

    def __init__(self, recording: Path) -> None:
        self.path = recording.with_name(f"{recording.name}.images")

    def store(self, image: InlineImage) -> None:
        """Store the image if it is not there yet. Raises OSError."""
        target = self.path / image.file_name
        if target.exists():
            return
        self.path.mkdir(mode=0o700, exist_ok=True)
        partial = self.path / f".{image.sha256}.{os.getpid()}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(image.payload)
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


@contextmanager
def _open_locked(path: Path) -> Iterator[int]:
    """Open the file and hold its lock, so that processes that share it don't cut each other's lines."""
    descriptor = _open(path)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _size(descriptor: int) -> int | None:
    """Return the file's size; None for a pipe, which can't be cut back."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _ends_in_torn_line(descriptor: int, size: int | None) -> bool:
    """Return whether the file lacks its last line break, as after a process was killed while it wrote."""
    return bool(size) and os.pread(descriptor, 1, (size or 1) - 1) != b"\n"


def _progress(written: int) -> int:
    if not written:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return written
