"""What an engine can't do is refused by name, and what it does otherwise is written down."""

from pathlib import Path

from tests.export.conftest import Probe


def test_options_that_an_engine_lacks_are_refused_by_name(exported: Path, probe: Probe) -> None:
    """In one line, with the option in it."""
    for change, (status, said) in probe("make_exports.py", exported)["refused"].items():
        assert status == 2
        assert change.partition(": ")[2].partition(" =")[0] in said
        assert len(said.splitlines()) == 1


def test_what_does_not_carry_over_is_said_beside_the_export(exported: Path) -> None:
    """The progressive limit and the guards are this project's own; accelerate runs its own trainer."""
    for target in ("verl", "openrlhf"):
        notes = (exported / f"{target}-rl" / "README.md").read_text(encoding="utf-8")
        assert "final_completion_length: the limit does not grow" in notes
        assert "rounds: " in notes
    assert "it is the same trainer" in (exported / "accelerate-rl" / "README.md").read_text(encoding="utf-8")
