"""Unsupported options are refused by name, and the notes list all other differences."""

from pathlib import Path

from tests.export.conftest import Probe


def test_options_that_an_engine_lacks_are_refused_by_name(exported: Path, probe: Probe) -> None:
    """The error is one line that names the option."""
    for change, (status, errors) in probe("make_exports.py", exported)["refused"].items():
        assert status == 2
        assert change.partition(": ")[2].partition(" =")[0] in errors
        assert len(errors.splitlines()) == 1


def test_the_notes_list_what_does_not_carry_over(exported: Path) -> None:
    """The growing length limit and the guards exist only here; accelerate runs this project's own trainer."""
    for target in ("verl", "openrlhf"):
        notes = (exported / f"{target}-rl" / "README.md").read_text(encoding="utf-8")
        assert "final_completion_length: the limit does not grow" in notes
        assert "rounds: " in notes
    assert "it is the same trainer" in (exported / "accelerate-rl" / "README.md").read_text(encoding="utf-8")
