"""What a stage collects, saved over a restart."""

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests.training.teaching import Teacher
from training.stages.cache import TeacherReplyLog, digest, load_or_compute, weights_digest

ASKS = """
import sys
from pathlib import Path
from training.config import SftTable
from training.stages.cache import TeacherReplyLog
from training.stages.teachers import ask_endpoint
from training.types import Problem

table = SftTable(max_steps=1, teacher="endpoint", endpoint=sys.argv[1])
journal = TeacherReplyLog(Path(sys.argv[2]), "these")
rows = [Problem(str(n), f"What is {n}+{n}?", str(2 * n)) for n in range(40)]
replies = ask_endpoint(table, rows, [None] * len(rows), earlier=journal.replies, save=journal.add)
print(sum(answer == row.gold for row, [(_, answer)] in zip(rows, replies)))
"""


def test_a_result_is_computed_once_and_again_for_other_settings(tmp_path: Path) -> None:
    """The value and its cost come back from the file, whole or not at all."""
    made, now = count(), count()
    path = tmp_path / "gathered.json"

    def ask(bound: str) -> tuple[object, float]:
        return load_or_compute(
            path, bound, lambda: {"number": next(made), "ids": (1, 2)}, lambda: float(next(now))
        )

    first = ask("a")
    assert first == ({"number": 0, "ids": [1, 2]}, 1.0)
    assert ask("a") == first
    assert ask("b") == ({"number": 1, "ids": [1, 2]}, 1.0)
    assert ask("a") == ({"number": 2, "ids": [1, 2]}, 1.0)
    assert [file.name for file in tmp_path.iterdir()] == ["gathered.json"]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    """The next try computes the result."""
    path = tmp_path / "gathered.json"
    with pytest.raises(ZeroDivisionError):
        load_or_compute(path, "a", lambda: 1 // 0, float)
    assert load_or_compute(path, "a", lambda: 5, float)[0] == 5


def test_a_digest_depends_on_all_its_parts(tmp_path: Path) -> None:
    """Their order does not matter; weights differ by their content."""
    assert digest(a=1, b=[2]) == digest(b=[2], a=1) != digest(a=1, b=[3])
    for name, weights in (("x", b"1"), ("y", b"1"), ("z", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    x, y, z = (weights_digest(tmp_path / name) for name in "xyz")
    assert x == y != z
    assert weights_digest(None) == ""


def test_a_reply_log_drops_a_line_that_was_cut_off(tmp_path: Path) -> None:
    """It keeps whole lines; a log with another digest is empty."""
    path = tmp_path / "asked.jsonl"
    journal = TeacherReplyLog(path, "a")
    journal.add("1", [["t", "a"]])
    journal.add("2", [])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"3": [["t"')
    again = TeacherReplyLog(path, "a")
    assert again.replies == {"1": [["t", "a"]], "2": []}
    again.add("3", [])
    assert set(TeacherReplyLog(path, "a").replies) == {"1", "2", "3"}
    assert TeacherReplyLog(path, "b").replies == {}
    assert TeacherReplyLog(path, "a").replies == {}


def test_a_killed_stage_asks_the_teacher_only_the_rest(tmp_path: Path) -> None:
    """The log holds what was answered before."""
    with Teacher(patience=20) as teacher:
        command = [sys.executable, "-c", ASKS, teacher.url, str(tmp_path / "asked.jsonl")]
        asker = subprocess.Popen(command)
        teacher.stuck.wait(60)
        journal = tmp_path / "asked.jsonl"
        while len(journal.read_text(encoding="utf-8").splitlines()) < 21:
            assert asker.poll() is None
        asker.send_signal(signal.SIGKILL)
        asker.wait()
        known = {f"What is {row}+{row}?" for row in TeacherReplyLog(journal, "these").replies}
        teacher.patience = None
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "40\n"
    assert len(known) == 20
    assert {teacher.asked[question] for question in known} == {1}
    assert len(teacher.asked) == 40
