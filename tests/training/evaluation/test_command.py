"""The evaluation from beginning to end, on a gateway in front of a scripted engine."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from tests.fakes import ScriptedUpstream, says, until
from tests.serving import serving, serving_in_thread
from training.evaluation.command import main

ROOT = Path(__file__).parents[3]
GOLDS = (7, 7, 8, 7)
GRID = ("--budgets", "off,64", "--samples", "1,3", "--stops", "none,adaptive")
SETTINGS = 2 * (1 + 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four questions, three of which 7 is the answer to."""
    path = tmp_path / "set.jsonl"
    rows = [{"question": f"Question {place}?", "answer": gold} for place, gold in enumerate(GOLDS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@contextmanager
def gateway(*says_what: str) -> Iterator[tuple[str, ScriptedUpstream]]:
    """The address of a gateway whose engine always says this, and the engine."""
    upstream = ScriptedUpstream(*(says(text) for text in says_what))
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        yield f"{url}/v1", upstream


def evaluate(data: Path, *arguments: str) -> int:
    """Runs the evaluation of this file; its exit status."""
    return main(["--data", str(data), "--out", str(data.with_name("out.jsonl")), *arguments])


def figures(data: Path) -> dict[str, dict[str, Any]]:
    """The settings of the summary that was written, by name, without what a clock says."""
    summary = json.loads(data.with_name("out.json").read_text())
    return {row["name"]: {k: v for k, v in row.items() if k != "seconds"} for row in summary["settings"]}


def lines(data: Path) -> list[dict[str, Any]]:
    """The replies in the results file."""
    return [json.loads(line) for line in data.with_name("out.jsonl").read_text().splitlines()[1:]]


def test_every_question_is_asked_once_at_every_setting(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file holds one reply for each; the summary, the table and the picture have every setting."""
    with gateway("It is \\boxed{7}.") as (url, _):
        assert evaluate(data, "--url", url, *GRID) == 0
    keys = [(reply["setting"], reply["id"]) for reply in lines(data)]
    assert len(keys) == len(set(keys)) == SETTINGS * len(GOLDS)
    told = figures(data)
    assert len(told) == SETTINGS
    assert {row["strict"]["percent"] for row in told.values()} == {75}
    assert told["off"]["samples"] == 1
    assert told["off@3 majority"]["samples"] == 3
    assert told["off@3 majority"]["tokens"] > told["off"]["tokens"]
    assert told["off"]["frontier"]
    assert not told["off@3 majority"]["frontier"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in told)
    drawn = ElementTree.parse(data.with_name("out.svg")).iter("{http://www.w3.org/2000/svg}title")
    assert {(title.text or "").partition(":")[0] for title in drawn} == told.keys()


def test_without_matplotlib_there_is_no_chart(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are written all the same, and the command says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
    assert "pip install 'thinkgate[plot]'" in capsys.readouterr().err
    assert figures(data)
    assert not data.with_name("out.svg").exists()


def test_the_form_asked_for_is_what_strict_wants(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Right in another form is right leniently only; --json prints the summary that is written."""
    with gateway("The answer is 7.") as (url, upstream):
        assert evaluate(data, "--url", url, "--json", "--shots", "1", "--max-tokens", "50") == 0
    (row,) = figures(data).values()
    assert row["questions"] == len(GOLDS) - 1, "one of the four is shown and not asked"
    assert row["strict"]["percent"] == 0
    assert row["lenient"]["percent"] > 0
    assert json.loads(capsys.readouterr().out) == json.loads(data.with_name("out.json").read_text())
    body = upstream.bodies[0]
    assert "\\boxed{}" in body["messages"][-1]["content"]
    assert "\\boxed{" in body["messages"][1]["content"]


def test_a_vote_whose_scorer_failed_is_no_answer(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It went on unweighted, so it is not the setting's; by the gateway's own choice that would be fair."""
    gone = {"kind": "trained", "url": "http://127.0.0.1:9", "unproven": True}
    app = create_app(Settings.model_validate({"scorers": {"rm": gone}}), ScriptedUpstream(says("\\boxed{7}")))
    grid = ("--budgets", "off", "--samples", "3", "--stops", "none")
    with serving_in_thread(app) as url:
        assert evaluate(data, "--url", f"{url}/v1", *grid, "--votes", "weighted:rm") != 0
        assert 'the scorer "rm" failed' in capsys.readouterr().err
        assert evaluate(data, "--url", f"{url}/v1", *grid, "--votes", "weighted:agreement") == 0


def test_a_grid_that_grows_asks_only_what_is_new(data: Path) -> None:
    """Replies at settings that were asked before are taken from the file; complete, it needs no gateway."""
    with gateway("\\boxed{7}") as (url, upstream):
        assert evaluate(data, "--url", url, "--budgets", "off") == 0
        assert len(upstream.plans) == len(GOLDS)
        assert evaluate(data, "--url", url, "--budgets", "off,low") == 0
        assert len(upstream.plans) == 2 * len(GOLDS)
    assert evaluate(data, "--budgets", "off,low") == 0
    assert len(figures(data)) == 2


@pytest.mark.parametrize("cut", [3, -1, -40, -400])
def test_a_file_cut_off_anywhere_is_gone_on_with(data: Path, cut: int) -> None:
    """In the middle of its head, of its last line or further up: the result is that of an unbroken run."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
        whole = figures(data)
        out = data.with_name("out.jsonl")
        out.write_bytes(out.read_bytes()[:cut])
        assert evaluate(data, "--url", url) == 0
    assert figures(data) == whole
    assert len(lines(data)) == len(GOLDS)


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
async def test_killed_midway_and_resumed_gives_the_same(
    data: Path, ending: signal.Signals, status: int
) -> None:
    """What was answered before the end is not asked again, and the figures are those of one run."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(says("\\boxed{7}"), says("\\boxed{7}"), says(gate, "\\boxed{7}"))
    out = data.with_name("out.jsonl")
    async with serving(create_app(Settings(), upstream)) as url:
        first = await started(data, "--url", f"{url}/v1", "--concurrency", "1")
        await until(lambda: len(upstream.plans) == 3 and out.read_bytes().count(b"\n") == 3, seconds=60)
        first.send_signal(ending)
        assert await first.wait() == status
        gate.set()
        second = await started(data, "--url", f"{url}/v1")
        assert await second.wait() == 0
        resumed, asked = figures(data), len(upstream.plans)
        out.unlink()
        third = await started(data, "--url", f"{url}/v1")
        assert await third.wait() == 0
    assert figures(data) == resumed
    assert asked == 3 + len(GOLDS) - 2


async def started(data: Path, *arguments: str) -> Process:
    """The evaluation as a process of its own."""
    out = str(data.with_name("out.jsonl"))
    command = (sys.executable, "-m", "training", "eval", "--data", str(data), "--out", out, *arguments)
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)


@pytest.mark.parametrize("changed", [("--seed", "2"), ("--form", "tag"), ("--model", "other")])
def test_another_evaluation_never_goes_into_the_same_file(
    data: Path, changed: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What bears on the replies is named where it differs from the file's, and nothing is asked."""
    with gateway("\\boxed{7}") as (url, upstream):
        assert evaluate(data, "--url", url) == 0
        asked = len(upstream.plans)
        assert evaluate(data, "--url", url, *changed) == 2
        assert len(upstream.plans) == asked
    told = capsys.readouterr().err
    assert "holds another evaluation" in told
    assert changed[0].removeprefix("--") in told


def test_data_that_changed_is_another_evaluation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same number of questions under the same name is not enough."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
        data.write_text(data.read_text().replace("Question 0", "Question 9"))
        assert evaluate(data, "--url", url) == 2
    assert "digest" in capsys.readouterr().err


def test_replies_that_stay_missing_are_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused question is not counted as wrong: it is named, the status is 1, and it is asked again."""
    refusal = UpstreamError(400, "the prompt is too long", {"type": "invalid_request_error"})
    upstream = ScriptedUpstream(says("\\boxed{7}"), says(refusal), says("\\boxed{7}"))
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        assert evaluate(data, "--url", f"{url}/v1", "--concurrency", "1") == 1
        told = capsys.readouterr().err
        assert "question 2 at off: 400: the prompt is too long" in told
        assert figures(data)["off"]["questions"] == len(GOLDS) - 1
        assert evaluate(data, "--url", f"{url}/v1") == 0
    assert figures(data)["off"]["questions"] == len(GOLDS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--budgets", "enormous"], "allowed: off"),
        (["--model", "nobody"], "nobody"),
    ],
)
def test_a_setting_that_the_gateway_refuses_ends_it(
    data: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gateway's own words are told, and no figures are made up."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url, *arguments) == 1
    assert told in capsys.readouterr().err
    assert not data.with_name("out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--votes", "lottery"], "unknown vote"),
        (["--samples", "few"], "'few' is no number of samples"),
        (["--budgets", ","], "a list of the grid is empty"),
        (["--count", "9"], "there are 4"),
        (["--count", "-1"], "--count can't be negative"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_arguments_that_cannot_be_used(
    data: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and why, before any gateway is needed."""
    assert evaluate(data, *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["some notes\n", "some notes", '{"about": \n', '{"about": 3}\n'])
def test_a_file_of_something_else_is_left_alone(
    data: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A results file that no evaluation wrote is named and not changed."""
    out = data.with_name("out.jsonl")
    out.write_text(text)
    assert evaluate(data) == 2
    assert str(out) in capsys.readouterr().err
    assert out.read_text() == text


def test_without_a_gateway_it_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No address and no command that serves: status 1 and what to give."""
    assert evaluate(data) == 1
    assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["false", "no-such-command --at-all"])
def test_a_gateway_that_does_not_start_is_told(
    data: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that was to serve is named."""
    assert evaluate(data, "--serve", command) == 1
    assert command in capsys.readouterr().err


async def test_thinkgate_eval_starts_a_gateway_of_its_own(data: Path) -> None:
    """Without an address the command serves, asks that, and ends it; the figures come as JSON."""
    from tests.stub_engine import Json, stub_engine

    reply = {"choices": [{"index": 0, "message": {"content": "\\boxed{7}"}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", *[Json({**reply, "usage": usage})] * len(GOLDS))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "eval", "--data", str(data), "--json", "--model", "tiny"),
            *("--budgets", "default", "--out", str(data.with_name("out.jsonl"))),
            cwd=ROOT,
            env={"THINKGATE_UPSTREAM": server.base_url},
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(60):
            printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    (row,) = json.loads(printed)["settings"]
    assert (row["lenient"]["percent"], row["tokens"]) == (75, 5)
