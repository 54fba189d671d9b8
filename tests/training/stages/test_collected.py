"""What a stage gathered, kept over a restart."""

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests.training.teaching import Teacher
from training.stages.collected import Journal, binding, identity, once

ASKS = """
import sys
from pathlib import Path
from training.config import SftTable
from training.stages.collected import Journal
from training.stages.teachers import ask_endpoint
from training.types import Problem

table = SftTable(steps=1, teacher="endpoint", endpoint=sys.argv[1])
journal = Journal(Path(sys.argv[2]), "these")
rows = [Problem(str(n), f"What is {n}+{n}?", str(2 * n)) for n in range(40)]
replies = ask_endpoint(table, rows, [None] * len(rows), known=journal.known, keep=journal.add)
print(sum(answer == row.gold for row, [(_, answer)] in zip(rows, replies)))
"""


def test_it_is_made_once_and_anew_for_other_settings(tmp_path: Path) -> None:
    """The value and its cost come back from the file, whole or not at all."""
    made, now = count(), count()
    path = tmp_path / "gathered.json"

    def ask(bound: str) -> tuple[object, float]:
        return once(path, bound, lambda: {"number": next(made), "ids": (1, 2)}, lambda: float(next(now)))

    first = ask("a")
    assert first == ({"number": 0, "ids": [1, 2]}, 1.0)
    assert ask("a") == first
    assert ask("b") == ({"number": 1, "ids": [1, 2]}, 1.0)
    assert ask("a") == ({"number": 2, "ids": [1, 2]}, 1.0)
    assert [file.name for file in tmp_path.iterdir()] == ["gathered.json"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """The next try makes it."""
    path = tmp_path / "gathered.json"
    with pytest.raises(ZeroDivisionError):
        once(path, "a", lambda: 1 // 0, float)
    assert once(path, "a", lambda: 5, float)[0] == 5


def test_a_binding_is_of_all_that_it_is_told(tmp_path: Path) -> None:
    """The order in which it is told is no matter; weights are told apart by what they are."""
    assert binding(a=1, b=[2]) == binding(b=[2], a=1) != binding(a=1, b=[3])
    for name, weights in (("x", b"1"), ("y", b"1"), ("z", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    x, y, z = (identity(tmp_path / name) for name in "xyz")
    assert x == y != z
    assert identity(None) == ""


def test_a_journal_drops_what_was_cut_off(tmp_path: Path) -> None:
    """What was written whole is known; one that is bound to something else is empty."""
    path = tmp_path / "asked.jsonl"
    journal = Journal(path, "a")
    journal.add("1", [["t", "a"]])
    journal.add("2", [])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"3": [["t"')
    again = Journal(path, "a")
    assert again.known == {"1": [["t", "a"]], "2": []}
    again.add("3", [])
    assert set(Journal(path, "a").known) == {"1", "2", "3"}
    assert Journal(path, "b").known == {}
    assert Journal(path, "a").known == {}


def test_a_teacher_that_was_being_asked_is_asked_only_the_rest(tmp_path: Path) -> None:
    """Killed in the middle of its questions, the asker knows afterwards what had been answered."""
    with Teacher(patience=20) as teacher:
        command = [sys.executable, "-c", ASKS, teacher.url, str(tmp_path / "asked.jsonl")]
        asker = subprocess.Popen(command)
        teacher.stuck.wait(60)
        journal = tmp_path / "asked.jsonl"
        while len(journal.read_text(encoding="utf-8").splitlines()) < 21:
            assert asker.poll() is None
        asker.send_signal(signal.SIGKILL)
        asker.wait()
        known = {f"What is {row}+{row}?" for row in Journal(journal, "these").known}
        teacher.patience = None
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "40\n"
    assert len(known) == 20
    assert {teacher.asked[question] for question in known} == {1}
    assert len(teacher.asked) == 40
