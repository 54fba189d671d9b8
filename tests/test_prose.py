"""The check of sentences and paragraphs that `make lint` ends with, run as it is run there."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "prose.py"


def words(count: int) -> str:
    """Return so many words, without an end."""
    return " ".join(["word"] * count)


def too_long(folder: Path, name: str, text: str) -> list[str]:
    """Return what the check prints about a file of this name and text, without the folder."""
    (folder / name).write_text(text, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / name)], capture_output=True, text=True, check=False
    )
    lines = [line.removeprefix(f"{folder}/") for line in run.stdout.splitlines()]
    assert run.returncode == (1 if lines else 0), run.stderr
    return lines


def test_a_sentence_may_have_32_words(tmp_path: Path) -> None:
    """One word more is a finding with its file, line and count."""
    assert too_long(tmp_path, "page.md", f"{words(32)}.\n") == []
    sentence = f"{words(33)}."
    assert too_long(tmp_path, "page.md", f"# Title\n\nShort. {sentence}\n") == [
        f"page.md:3: 33 words: {sentence}"
    ]


def test_the_line_is_the_one_where_the_sentence_begins(tmp_path: Path) -> None:
    """A sentence that begins on a paragraph's second line is reported there."""
    text = f"Short.\nAlso short. {words(20)}\n{words(20)}.\n"
    assert [line.partition(" ")[0] for line in too_long(tmp_path, "page.md", text)] == ["page.md:2:"]


@pytest.mark.parametrize(
    "between",
    ["e.g. this", "i.e. that", "cf. Brown et al. (2024)", "0.5 or 1.25", "gateway/app.py here", "J. Smith"],
)
def test_a_full_stop_within_a_sentence_does_not_end_it(between: str, tmp_path: Path) -> None:
    """Abbreviations, decimals, file names and initials go on."""
    assert len(too_long(tmp_path, "page.md", f"{words(16)} {between} {words(16)}.")) == 1


@pytest.mark.parametrize(
    "between",
    [
        "one. Two",
        "one? `two`",
        "config.toml. The",
        "(one.) Two",
        "one … Two",
        "it is 7. Two",
        "etc. Two",
        "`a`. `b`",
    ],
)
def test_a_sentence_ends(between: str, tmp_path: Path) -> None:
    """Full stops, questions and ellipses end sentences, behind brackets and code too."""
    assert too_long(tmp_path, "page.md", f"{words(20)} {between} {words(20)}.") == []


def test_code_counts_as_one_word_and_addresses_as_none(tmp_path: Path) -> None:
    """Inline code may hold spaces and span lines; a link counts by its text."""
    code = f"`{words(9)}\n{words(9)}`"
    assert too_long(tmp_path, "page.md", f"{words(31)} {code}.") == []
    assert too_long(tmp_path, "page.md", f"{words(31)} [text](https://example.org/a_(b)?c).") == []
    assert len(too_long(tmp_path, "page.md", f"{words(32)} {code}.")) == 1


@pytest.mark.parametrize("code", ["```\n{}\n\n{}\n```", "~~~ text\n{}\n~~~", "Like this:\n\n    {}\n    {}"])
def test_blocks_of_code_do_not_count(code: str, tmp_path: Path) -> None:
    """Fenced and indented blocks are left out; what follows them is read."""
    block = code.format(words(40), words(40))
    found = too_long(tmp_path, "page.md", f"{block}\n\n{words(33)}.")
    assert len(found) == 1


def test_cells_and_items_stand_alone(tmp_path: Path) -> None:
    """A table's cells and a list's items, indented or not, are not added up; each is read."""
    row = f"| {words(20)} | {words(20)} |\n"
    assert too_long(tmp_path, "page.md", f"|---|---|\n{row}{row}") == []
    assert too_long(tmp_path, "page.md", f"- {words(20)}\n    - {words(20)}\n1. {words(20)}\n") == []
    assert len(too_long(tmp_path, "page.md", f"| short | {words(33)} |\n- {words(33)}\n")) == 2


def test_only_a_readme_has_short_paragraphs(tmp_path: Path) -> None:
    """A README's paragraph may have 110 words, other pages' any number."""
    paragraph = "One two three four five. " * 22
    assert too_long(tmp_path, "README.md", paragraph) == []
    assert too_long(tmp_path, "page.md", f"{paragraph} More.") == []
    (finding,) = too_long(tmp_path, "README.md", f"{paragraph} More.")
    assert finding.startswith("README.md:1: 111 words in a paragraph: One two")


def test_docstrings_and_comments_are_read(tmp_path: Path) -> None:
    """Docstrings of modules, functions and attributes count, and comments over several lines."""
    source = f'''"""{words(33)}."""

LIMIT = 1
"""{words(33)}."""
text = """{words(40)}."""


def run():
    """Run.

    {words(20)}
    {words(20)}.

        {words(40)}
    """
    # {words(20)}
    # {words(20)}.
    return 1  # {words(33)}
    # noqa: {words(40)}
'''
    found = too_long(tmp_path, "module.py", source)
    assert [line.split(":")[1] for line in found] == ["1", "4", "11", "16", "18"]
