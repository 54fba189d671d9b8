"""The `replay` command reads a recording and prints metrics."""

import argparse
import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.commands.replay import add_parser


def replay(*arguments: str | Path) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["replay", *map(str, arguments)])
    status: int = args.run(args)
    return status


def sample(value: int, **more: Any) -> dict[str, Any]:
    """Return a sample that answers with this value."""
    return {"text": f"So it is \\boxed{{{value}}}.", **more}


def record(path: Path, *rows: Any) -> Path:
    """Write a recording of these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two questions, one easy and one hard, eight samples each."""
    easy = {"question": "6 x 7?", "answer": "42", "samples": [sample(42, tokens=10) for _ in range(8)]}
    hard = {
        "question": "6 x 9?",
        "answer": 54,
        "samples": [sample(v, tokens=20) for v in (54, 42, 54, 42, 54, 54, 42, 54)],
    }
    return record(tmp_path / "recording.jsonl", easy, hard)


def settings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Return the printed settings by name."""
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["settings"]}


def test_json_holds_the_usual_settings(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints one JSON object with percentages and means for one question."""
    assert replay(recording, "--json") == 0
    metrics = settings(capsys)
    assert {"pass@1", "majority", "adaptive", "window-3", "window-5", "oracle"} <= metrics.keys()
    assert metrics["pass@1"]["accuracy"] == 81.25
    majority = metrics["majority"]
    assert (majority["accuracy"], majority["samples"], majority["tokens"]) == (100, 8, 120)
    assert 4 <= metrics["adaptive"]["samples"] < 8
    assert majority["low"] <= majority["accuracy"] <= majority["high"]


def test_the_table_names_every_setting(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the command prints a table with the same settings."""
    assert replay(recording, "--stop", "first-3,auto") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("pass@1", "majority", "window-5", "first-3", "auto", "oracle"))


def test_gzip_is_accepted(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gzipped recording gives the same metrics, whatever its name."""
    packed = recording.with_name("packed.jsonl")
    packed.write_bytes(gzip.compress(recording.read_bytes()))
    replay(recording, "--json")
    plain = capsys.readouterr().out
    assert replay(packed, "--json") == 0
    assert capsys.readouterr().out == plain


def test_scores_add_the_weighing_votes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where samples carry scores (here logits), the votes that use them are replayed too."""
    row = {"answer": "1", "samples": [sample(1, score=3.0), sample(2, score=-4.0), sample(2, score=-4.0)]}
    path = record(tmp_path / "scored.jsonl", row)
    assert replay(path, "--json") == 0
    metrics = settings(capsys)
    assert [metrics[name]["accuracy"] for name in ("majority", "weighted", "best")] == [0, 100, 100]
    assert "best-of-majority" in metrics
    assert replay(path, "--json", "--scorer", "none") == 0
    assert "weighted" not in settings(capsys)


def test_answers_and_labels_of_samples_are_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample's own answer and label count more than the grader's reading of its text."""
    row = {
        "answer": "1",
        "samples": [sample(2, answer="1"), sample(1, correct=False), sample(1, answer=None)],
    }
    assert replay(record(tmp_path / "own.jsonl", row), "--json") == 0
    assert settings(capsys)["pass@1"]["accuracy"] == pytest.approx(100 / 3, abs=0.001)


def test_a_line_may_state_a_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers within it are correct; a tolerance that is no number over 0 is named with its line."""
    row = {"answer": "3.1416", "samples": [sample(3), {"text": "So it is \\boxed{3.14}."}]}
    for tolerance, accuracy in ((None, 0), (0.01, 50), (0.5, 100)):
        path = record(tmp_path / "pi.jsonl", row | {"tolerance": tolerance})
        assert replay(path, "--json") == 0
        assert settings(capsys)["pass@1"]["accuracy"] == accuracy
    for odd in (0, -1, "0.1", True, math.inf):
        assert replay(record(tmp_path / "odd.jsonl", row | {"tolerance": odd})) != 0
        assert "line 1: tolerance" in capsys.readouterr().err


def test_the_grader_is_asked_where_forms_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The grader's workers recognise a correct answer that needs algebra to compare."""
    row = {"answer": "1", "samples": [{"text": "It is \\boxed{\\int_0^1 2x\\,dx}."}]}
    assert replay(record(tmp_path / "integral.jsonl", row), "--json") == 0
    assert settings(capsys)["pass@1"]["accuracy"] == 100


def test_confidence_comes_from_logprobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the confidence scorer, the logged alternatives weigh the samples."""

    def logged(value: int, logprob: float) -> dict[str, Any]:
        top = [{"token": "x", "logprob": logprob}, {"token": "y", "logprob": logprob}]
        return sample(value, logprobs={"content": [{"token": "x", "logprob": logprob, "top_logprobs": top}]})

    row = {"answer": "1", "samples": [logged(1, -9.0), logged(2, -1.0), logged(2, -1.0)]}
    path = record(tmp_path / "logged.jsonl", row)
    assert replay(path, "--json", "--scorer", "confidence:mean", "--vote", "confidence") == 0
    metrics = settings(capsys)
    assert [metrics[name]["accuracy"] for name in ("majority", "confidence")] == [0, 100]


def test_the_plot_is_an_svg(recording: Path, tmp_path: Path) -> None:
    """--plot writes a chart in which every setting has its point, with a tooltip, in both panels."""
    plot = tmp_path / "plot.svg"
    assert replay(recording, "--plot", plot) == 0
    titles = [
        element.text or "" for element in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert sum(title.startswith("adaptive:") for title in titles) == 2


def test_torn_lines_are_skipped_and_counted(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is replayed; standard error and the JSON object give their number."""
    replay(recording, "--json", "--seed", "1")
    whole = json.loads(capsys.readouterr().out)
    with recording.open("a", encoding="utf-8") as file:
        file.write('{"question": "to')
    assert replay(recording, "--json", "--seed", "1") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {**whole, "unreadable_lines": 1}
    assert whole["unreadable_lines"] == 0
    assert "1 line could not be read and was skipped: line 3." in printed.err


def test_a_gzip_file_is_read_up_to_its_tear(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The part before the tear is replayed, and the command says that something is missing."""
    packed = gzip.compress(recording.read_bytes()) + gzip.compress(recording.read_bytes())
    recording.write_bytes(packed[:-30])
    assert replay(recording, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["questions"] >= 2
    assert "could not be read" in printed.err


def test_a_plot_needs_the_extra(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without matplotlib the command says what to install, before it computes anything."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert replay(recording, "--plot", tmp_path / "plot.svg") == 2
    printed = capsys.readouterr()
    assert "pip install 'thinkgate[plot]'" in printed.err
    assert printed.out == ""
    assert replay(recording) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 2: "),
        ('{"answer": "1", "samples": []}', "line 2: samples: "),
        ('{"answer": "1", "samples": [{"text": "1", "score": "high"}]}', "line 2: samples.0.score: "),
        ('{"answer": "1", "samples": [{"text": "1", "tokens": -1}]}', "line 2: samples.0.tokens: "),
        ('{"answer": "1", "samples": [{"score": 1}]}', "line 2: samples.0: needs a text or an answer"),
        ('{"samples": [{"text": "1"}]}', "line 2: samples.0: has no correct, and the question no answer"),
    ],
)
def test_bad_lines_are_named(
    recording: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the number of the line and the problem."""
    good = recording.read_text(encoding="utf-8").splitlines()[0]
    recording.write_text(f"{good}\n{line}\n", encoding="utf-8")
    assert replay(recording) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop", "sometimes"], "allowed: none, adaptive, window, first-<m>, confident"),
        (["--vote", "lottery"], "allowed: majority"),
        (["--scorer", "oracle"], "allowed: none, recorded, confidence"),
        (["--scorer", "confidence"], "no sample has logprobs"),
        (["--scorer", "confidence:loud"], "unknown measure 'loud'"),
        (["--window", "0"], "at least one token"),
        (["--threshold", "95"], "the threshold lies in [0, 1]"),
        (["--plot", "plot.png"], "must end in .svg"),
    ],
)
def test_bad_arguments_are_refused(
    recording: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with status 2 and says what is allowed."""
    assert replay(recording, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", ["-1", "x", "1.5"])
def test_counts_are_natural_numbers(recording: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused as a misuse of the command."""
    with pytest.raises(SystemExit, match="2"):
        replay(recording, "--samples", count)
    assert "is no natural number" in capsys.readouterr().err


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The messages for a missing, an empty and a broken file differ."""
    assert replay(tmp_path / "missing") == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert replay(tmp_path / "empty") == 2
    assert "holds no questions" in capsys.readouterr().err
    (tmp_path / "broken").write_bytes(gzip.compress(b"{}" * 99)[:20])
    assert replay(tmp_path / "broken") == 2
    assert "no line can be read" in capsys.readouterr().err
