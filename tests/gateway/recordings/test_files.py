"""Appending to a recording: lines are whole, whatever becomes of the disk."""

import errno
import gzip
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.recordings.conversation import InlineImage
from gateway.recordings.files import ImageFolder, LinesLost, append_lines, check_writable

LINES = [b'{"id": "a"}\n', b'{"id": "b"}\n', b'{"id": "c"}\n']
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

Write = Callable[[int, memoryview], int]


def writes_at_most(count: int) -> Write:
    """A write that stops short after so many bytes, each time."""
    return lambda descriptor, block: os.write(descriptor, block[:count])


def disk_with_room_for(size: int) -> Write:
    """A write that finds the disk full once it has written so many bytes."""
    room = [size]

    def write(descriptor: int, block: memoryview) -> int:
        if not room[0]:
            raise FULL
        written = os.write(descriptor, block[: room[0]])
        room[0] -= written
        return written

    return write


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_short_write_is_finished(tmp_path: Path, name: str) -> None:
    """However little goes at once."""
    path = tmp_path / name
    append_lines(path, LINES, writes_at_most(5))
    append_lines(path, LINES, writes_at_most(1))
    raw = path.read_bytes()
    assert (gzip.decompress(raw) if path.suffix == ".gz" else raw) == b"".join(LINES) * 2


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (1, 0), (11, 0), (12, 1), (20, 1), (24, 2), (35, 2)])
def test_a_full_disk_keeps_whole_lines(tmp_path: Path, room: int, kept: int) -> None:
    """The line that did not fit is withdrawn, the lines before it stay, and the others are counted."""
    path = tmp_path / "t.jsonl"
    append_lines(path, LINES[:1])
    with pytest.raises(LinesLost, match="No space left") as lost:
        append_lines(path, LINES, disk_with_room_for(room))
    assert lost.value.count == 3 - kept
    assert path.read_bytes() == LINES[0] + b"".join(LINES[:kept])


def test_a_full_disk_withdraws_a_gzip_member(tmp_path: Path) -> None:
    """Half a member can't be read, so none of it stays."""
    path = tmp_path / "t.jsonl.gz"
    append_lines(path, LINES[:1])
    with pytest.raises(LinesLost) as lost:
        append_lines(path, LINES, disk_with_room_for(20))
    assert lost.value.count == 3
    assert gzip.decompress(path.read_bytes()) == LINES[0]


@pytest.mark.parametrize("room", [0, 1, 13, 40])
def test_a_torn_line_costs_no_other(tmp_path: Path, room: int) -> None:
    """After a process was killed while it wrote, the next line begins on a line of its own."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES[0] + b'{"id": "torn')
    if room < 37:
        with pytest.raises(LinesLost) as lost:
            append_lines(path, LINES, disk_with_room_for(room))
        assert lost.value.count == 3 - (room - 1) // 12 if room else 3
    append_lines(path, LINES)
    read = path.read_bytes().splitlines(keepends=True)
    assert read[0] == LINES[0]
    assert read[1] == b'{"id": "torn\n'
    assert read[-3:] == LINES


CHILD = """
import resource, sys
from pathlib import Path
from gateway.recordings.files import LinesLost, append_lines
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
line = b'{"text": "' + b"x" * 87 + b'"}\\n'
try:
    append_lines(Path(sys.argv[1]), [line] * 30)
except LinesLost as error:
    print(error.count, error)
"""


def test_the_kernel_stops_a_write_short(tmp_path: Path) -> None:
    """A file that may not grow beyond 1,000 bytes takes ten lines of a hundred bytes and no more."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id": "a"}\n')
    child = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.startswith("21 ")
    assert "File too large" in child.stdout
    raw = path.read_bytes()
    assert (len(raw), raw.count(b"\n"), raw[-3:]) == (912, 10, b'"}\n')


def test_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """Even where every write stops short, no line ends up in another."""
    path = tmp_path / "t.jsonl"

    def append() -> None:
        for _ in range(20):
            append_lines(path, LINES, writes_at_most(5))

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"".join(LINES) * 80


def test_a_pipe_is_written_like_a_file(tmp_path: Path) -> None:
    """It has no size and can't be cut back, but takes lines."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        append_lines(path, LINES)
        assert os.read(descriptor, 1000) == b"".join(LINES)
    finally:
        os.close(descriptor)


def test_a_path_that_cannot_be_opened_loses_all_lines(tmp_path: Path) -> None:
    """At the start it is the system's own error."""
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "nowhere" / "t.jsonl")
    with pytest.raises(LinesLost) as lost:
        append_lines(tmp_path / "nowhere" / "t.jsonl", LINES)
    assert lost.value.count == 3


def test_an_image_is_stored_once(tmp_path: Path) -> None:
    """Under its hash and type, for nobody but its owner to read; nothing else is left in the folder."""
    folder = ImageFolder(tmp_path / "t.jsonl")
    folder.store(InlineImage("abc", "image/png", b"first"))
    folder.store(InlineImage("abc", "image/png", b"again"))
    folder.store(InlineImage("def", "image/unheard-of", b"other"))
    assert folder.path == tmp_path / "t.jsonl.images"
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == {
        "abc.png": b"first",
        "def.bin": b"other",
    }
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.path / "abc.png").stat().st_mode) == 0o600
