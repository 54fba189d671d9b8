"""Find sentences and paragraphs that are too long to read at once.

    python .ci/prose.py                  # the whole project
    python .ci/prose.py docs gateway     # these files and folders

Reads docstrings and comments of Python files, and Markdown pages. A sentence may have 32 words, a
paragraph of a README 110. Prints each longer one as `file:line: words: text`, then counts by folder; the
exit status is 1 if there is any.

Code blocks do not count, and neither do addresses of links. Inline code is one word. A cell of a table and
an item of a list are paragraphs of their own.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Finding", "findings_of", "main"]

SENTENCE_WORDS = 32
README_PARAGRAPH_WORDS = 110
SOURCES = ("gateway", "policies", "scorers", "training", "tests", "benchmarks", ".ci", "docs", "docker")

ABBREVIATIONS = frozenset(
    {
        "al",
        "approx",
        "ca",
        "cf",
        "ch",
        "dr",
        "e.g",
        "eq",
        "esp",
        "etc",
        "fig",
        "i.e",
        "incl",
        "mr",
        "mrs",
        "no",
        "p",
        "pp",
        "prof",
        "resp",
        "sec",
        "vs",
        "viz",
    }
)
ENDING_ABBREVIATIONS = frozenset({"al", "etc", "no"})
"""Those that may also end a sentence: they do where a capital letter follows."""

END = re.compile(r"(?P<mark>\.{3}|[.!?…])(?P<closers>[\"'”’)\]*_]*)(?=\s+(?P<next>\S))")
ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,2}[.)])\s+(?=\S)")
FENCE = re.compile(r"\s*(```|~~~)")
RULE = re.compile(r"\s*([-=*_~^]\s*){3,}$")
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->", re.DOTALL)
TARGET = re.compile(r"\](\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)|\[[^\]]*\])")
ADDRESS = re.compile(r"https?://[^\s<>)]*[^\s<>).,;:!?]")
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pragma|fmt:|ruff:|mypy:|!)")


class Finding(NamedTuple):
    """A sentence or a paragraph that is too long."""

    line: int
    words: int
    what: str
    text: str


@dataclass
class Paragraph:
    """Lines of running text; `starts` holds where each begins in the text, and its number in the file."""

    text: str = ""
    starts: list[tuple[int, int]] = field(default_factory=list)

    def add(self, line: str, number: int) -> None:
        """Append a line."""
        self.starts.append((len(self.text), number))
        self.text += line.strip() + "\n"

    def line_at(self, offset: int) -> int:
        """Return the number of the line that holds this place of the text."""
        return max(number for start, number in self.starts if start <= offset)


def findings_of(path: Path) -> list[Finding]:
    """Return what is too long in one file, in the order of its lines."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        paragraphs = [*docstring_paragraphs(source), *comment_paragraphs(source)]
    else:
        paragraphs = list(paragraphs_of(list(enumerate(source.split("\n"), 1))))
    findings = [finding for paragraph in paragraphs for finding in long_sentences(paragraph)]
    if path.name == "README.md":
        findings += [finding for paragraph in paragraphs for finding in long_paragraph(paragraph)]
    return sorted(findings)


def docstring_paragraphs(source: str) -> Iterator[Paragraph]:
    """Read every string that stands alone: docstrings, and those that describe an attribute."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(text := node.value.value, str):
            first, *rest = text.split("\n")
            margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
            lines = [first.strip(), *(line[margin:] for line in rest)]
            yield from paragraphs_of(list(enumerate(lines, node.lineno)))


def comment_paragraphs(source: str) -> Iterator[Paragraph]:
    """Read comments; whole lines of comment that follow each other belong together."""
    block: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        number, text = token.start[0], token.string.lstrip("#").removeprefix(" ")
        alone = not token.line[: token.start[1]].strip()
        if not (alone and block and block[-1][0] == number - 1):
            yield from paragraphs_of(block)
            block = []
        block.append((number, text))
        if not alone:
            yield from paragraphs_of(block)
            block = []
    yield from paragraphs_of(block)


def paragraphs_of(lines: Sequence[tuple[int, str]]) -> Iterator[Paragraph]:
    """Cut lines into paragraphs; leaves out code: what is fenced, or indented after an empty line."""
    current = Paragraph()
    fence, listed, literal, empty = "", False, False, False
    for number, raw in lines:
        line = re.sub(r"^\s*(>\s?)+(?!>>)", "", raw) if raw.lstrip().startswith("> ") else raw
        mark = FENCE.match(line)
        if fence or mark:
            yield current
            current = Paragraph()
            if mark and mark[1] == (fence or mark[1]):
                fence = "" if fence else mark[1]
            continue
        if not line.strip() or RULE.match(line):
            yield current
            current, empty = Paragraph(), True
            continue
        indented, item = line.startswith(("    ", "\t")), ITEM.match(line)
        literal = line.startswith(">>> ") or (indented and (literal or empty) and not (listed or item))
        listed, empty = bool(item) or (listed and line.startswith(" ")), False
        if literal:
            continue
        cells = line.strip().startswith("|")
        if item or cells or line.startswith("#"):
            yield current
            current = Paragraph()
        if cells:
            yield from cells_of(line, number)
        else:
            current.add(line[item.end() :] if item else line.lstrip("#"), number)
            if line.startswith("#"):
                yield current
                current = Paragraph()
    yield current


def cells_of(line: str, number: int) -> Iterator[Paragraph]:
    """Read the row of a table: each cell is a paragraph."""
    for text in re.split(r"(?<!\\)\|", line.strip().strip("|")):
        cell = Paragraph()
        cell.add(text, number)
        yield cell


def plain(text: str) -> str:
    """Replace inline code, tags and addresses by as many characters that read as one word, or as none."""
    text = CODE.sub(lambda match: "C" * len(match[0]), text)
    text = TAG.sub(lambda match: "*" * len(match[0]), text)
    text = TARGET.sub(lambda match: "]" * len(match[0]), text)
    return ADDRESS.sub(lambda match: "U" * len(match[0]), text)


def word_count(text: str) -> int:
    """Count what stands between spaces and holds a letter or digit."""
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def sentence_ends(text: str) -> Iterator[int]:
    """Yield where each sentence of a text that `plain` made ends."""
    for match in END.finditer(text):
        following = match["next"]
        before = text[: match.start()].split()
        word = before[-1].lstrip("(\"'“‘[*").lower() if before else ""
        if match["mark"] == "." and not match["closers"]:
            initial = len(word) == 1 and word.isalpha() and before[-1].isupper()
            if initial or (
                word in ABBREVIATIONS and not (word in ENDING_ABBREVIATIONS and following.isupper())
            ):
                continue
        elif following.islower():  # a mark within a quotation or a parenthesis
            continue
        yield match.end()
    yield len(text)


def long_sentences(paragraph: Paragraph) -> Iterator[Finding]:
    """Yield the sentences of more words than a sentence may have."""
    text, start = plain(paragraph.text), 0
    for end in sentence_ends(text):
        count = word_count(text[start:end])
        if count > SENTENCE_WORDS:
            begin = start + len(text[start:end]) - len(text[start:end].lstrip())
            written = " ".join(paragraph.text[begin:end].split())
            yield Finding(paragraph.line_at(begin), count, "words", written)
        start = end


def long_paragraph(paragraph: Paragraph) -> Iterator[Finding]:
    """Yield the paragraph itself if it has more words than one of a README may have."""
    count = word_count(plain(paragraph.text))
    if count > README_PARAGRAPH_WORDS:
        opening = " ".join(paragraph.text.split()[:12])
        yield Finding(paragraph.line_at(0), count, "words in a paragraph", f"{opening} ...")


def files_in(paths: Sequence[Path]) -> list[Path]:
    """Return the Python files and Markdown pages at these paths, sorted."""
    files: set[Path] = set()
    for path in paths:
        candidates = [path] if path.is_file() else path.rglob("*")
        files |= {file for file in candidates if file.suffix in {".py", ".md"}}
    return sorted(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is too long; return 1 if anything is."""
    parser = argparse.ArgumentParser(prog="prose.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", type=Path, nargs="*", help="files and folders (the whole project)")
    chosen = parser.parse_args(arguments)
    root = Path(__file__).parents[1]
    paths = chosen.paths or [*root.glob("*.md"), *(root / name for name in SOURCES)]
    folders: Counter[str] = Counter()
    for path in files_in(paths):
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        for finding in findings_of(path):
            folders[shown.parts[0]] += 1
            print(f"{shown}:{finding.line}: {finding.words} {finding.what}: {finding.text}")
    if not folders:
        return 0
    counts = ", ".join(f"{folder} {count}" for folder, count in sorted(folders.items()))
    print(
        f"{folders.total()} too long ({counts}). "
        f"A sentence may have {SENTENCE_WORDS} words, a paragraph of a README {README_PARAGRAPH_WORDS}.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
